"""Teachers: where the log-probabilities that the student learns come from."""

from kdfast.teacher.gguf import convert_gguf
from kdfast.teacher.local import (
    LocalTeacher,
    ScoringRow,
    model_directory,
    model_fingerprint,
    model_vocab_size,
)
from kdfast.teacher.samples import draw_samples
from kdfast.teacher.scores import Scores, Wanted, call_opening_ids

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
