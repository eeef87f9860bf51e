"""Teachers: where the log-probabilities that the student learns come from."""

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
