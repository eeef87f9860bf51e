"""Evaluates whether a model calls tools correctly: greedy answers to held-out prompts, scored one by one."""

from kdfast.evaluate.answer import Answer
from kdfast.evaluate.evaluation import EVALUATION_KIND, SCHEMA_VERSION, Evaluation, evaluate
from kdfast.evaluate.generate import Constraint, Decoding, generate
from kdfast.evaluate.prompts import EvalPrompt, eval_prompts
from kdfast.evaluate.summary import by_category, summary

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
