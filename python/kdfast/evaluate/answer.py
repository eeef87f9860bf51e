"""One answer, scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kdfast.scoring import Score


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One generated answer.

    Attributes:
        text: what the model wrote, without the token that ended it.
        tokens: its length in tokens.
        cut: whether it was stopped by `max_new_tokens`.
        reference_text: the right answer.
        score: how it did.
        reference_tokens: length of the right answer; None = not known.
        category: of the prompt ("" = none).
        line: of the record; None = not from a file.
    """

    text: str
    tokens: int
    cut: bool
    reference_text: str
    score: Score
    reference_tokens: int | None = None
    category: str = ""
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON values."""
        return asdict(self) | {"score": self.score.to_json()}
