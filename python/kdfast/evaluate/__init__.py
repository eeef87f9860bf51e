"""Evaluates whether a model calls tools correctly: greedy answers to held-out prompts, scored one by one.

Names are imported when they are first used: tables and sums are made without torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdfast.evaluate.answer import Answer
    from kdfast.evaluate.evaluation import EVALUATION_KIND, SCHEMA_VERSION, Evaluation, evaluate
    from kdfast.evaluate.generate import Constraint, Decoding, generate
    from kdfast.evaluate.prompts import EvalPrompt, eval_prompts
    from kdfast.evaluate.summary import by_category, summary

_HOMES = {
    "EVALUATION_KIND": "kdfast.evaluate.evaluation",
    "SCHEMA_VERSION": "kdfast.evaluate.evaluation",
    "Answer": "kdfast.evaluate.answer",
    "Constraint": "kdfast.evaluate.generate",
    "Decoding": "kdfast.evaluate.generate",
    "EvalPrompt": "kdfast.evaluate.prompts",
    "Evaluation": "kdfast.evaluate.evaluation",
    "by_category": "kdfast.evaluate.summary",
    "eval_prompts": "kdfast.evaluate.prompts",
    "evaluate": "kdfast.evaluate.evaluation",
    "generate": "kdfast.evaluate.generate",
    "summary": "kdfast.evaluate.summary",
}

__all__ = [
    "EVALUATION_KIND",
    "SCHEMA_VERSION",
    "Answer",
    "Constraint",
    "Decoding",
    "EvalPrompt",
    "Evaluation",
    "by_category",
    "eval_prompts",
    "evaluate",
    "generate",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdfast.evaluate' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """This package. `generate` and `summary` are functions in it, though two of its modules have these names."""

    def __setattr__(self, name: str, value: Any) -> None:
        # After the import of a module, Python makes it an attribute of its package.
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
