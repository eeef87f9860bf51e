"""Is an answer right? Tool calls against BFCL's accepted values, scores, and the shares over many answers."""

from kdfast.scoring.match import Call, Mismatch, match_calls
from kdfast.scoring.score import Score, Share, score_answer, score_calls, summarise

__all__ = ["Call", "Mismatch", "Score", "Share", "match_calls", "score_answer", "score_calls", "summarise"]
