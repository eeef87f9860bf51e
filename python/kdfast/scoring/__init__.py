"""Decides whether answers are right: compares tool calls with BFCL's accepted values, and computes shares."""

from kdfast.scoring.accepted import read_accepted
from kdfast.scoring.match import Call, Mismatch, accepted_from_calls, count_right_calls, match_calls
from kdfast.scoring.parameters import Parameters, parameters_of
from kdfast.scoring.quality import quality
from kdfast.scoring.required_fields import compute_required_fields_present
from kdfast.scoring.score import FORMATS, NO_TRUTH, Score, Share, score_answer, score_calls, summarise
from kdfast.scoring.thinking import thinking_after

__all__ = [
    "FORMATS",
    "NO_TRUTH",
    "Call",
    "Mismatch",
    "Parameters",
    "Score",
    "Share",
    "accepted_from_calls",
    "compute_required_fields_present",
    "count_right_calls",
    "match_calls",
    "parameters_of",
    "quality",
    "read_accepted",
    "score_answer",
    "score_calls",
    "summarise",
    "thinking_after",
]
