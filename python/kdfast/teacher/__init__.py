"""Teachers: where the answers and the log-probabilities that the student learns come from.

Names are imported when they are first used, so that the client of an API teacher loads no torch.

Examples:
    >>> import kdfast.teacher
    >>> "LocalTeacher" in kdfast.teacher.__all__
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdfast.teacher.local.gguf import convert_gguf
    from kdfast.teacher.local.samples import draw_samples
    from kdfast.teacher.local.scores import Scores, Wanted, call_opening_ids
    from kdfast.teacher.local.teacher import (
        LocalTeacher,
        ScoringRow,
        model_directory,
        model_fingerprint,
        model_vocab_size,
    )

_HOMES = {
    "LocalTeacher": "kdfast.teacher.local.teacher",
    "Scores": "kdfast.teacher.local.scores",
    "ScoringRow": "kdfast.teacher.local.teacher",
    "Wanted": "kdfast.teacher.local.scores",
    "call_opening_ids": "kdfast.teacher.local.scores",
    "convert_gguf": "kdfast.teacher.local.gguf",
    "draw_samples": "kdfast.teacher.local.samples",
    "model_directory": "kdfast.teacher.local.teacher",
    "model_fingerprint": "kdfast.teacher.local.teacher",
    "model_vocab_size": "kdfast.teacher.local.teacher",
}

__all__ = [
    "LocalTeacher",
    "Scores",
    "ScoringRow",
    "Wanted",
    "call_opening_ids",
    "convert_gguf",
    "draw_samples",
    "model_directory",
    "model_fingerprint",
    "model_vocab_size",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdfast.teacher' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
