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
        score: the answer's score.
        reference_tokens: the length of the right answer in tokens; None = not known.
        category: the prompt's category ("" = none).
        line: the line of the record in its file; None = not from a file.
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
