"""Counts how many tokens a new tokenizer makes of rows. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdfast import _rust
from kdfast.data.control_tokens import ControlTokens
from kdfast.recipes.data.tokenizer_rows import BYTES, Block


@dataclass(kw_only=True)
class Counter:
    """Counts the tokens of rows.

    Attributes:
        tokenizer: the new tokenizer.
        tokens: its control tokens.
        prompts: tokens of each prompt.
        answers: tokens of each answer; 0 = the record has none.
        text_bytes: bytes of all texts, without control tokens.
        text_tokens: their tokens.
        first: the first row's tokens, and how many of them are the prompt's.
        known: tokens of each text that was seen: many come again and again.
    """

    tokenizer: _rust.Tokenizer
    tokens: ControlTokens
    prompts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    text_bytes: int = 0
    text_tokens: int = 0
    first: tuple[list[int], int] = field(default_factory=lambda: ([], 0))
    known: dict[str, int] = field(default_factory=dict)

    def count(self, block: Block, byte_of: NDArray[np.uint8]) -> None:
        """Counts the tokens of a block of single bytes."""
        edges, pieces = block.pieces(byte_of)
        lengths = [1 if isinstance(piece, int) else self._length(piece) for piece in pieces]
        before = np.concatenate([[0], np.cumsum(lengths)])  # tokens before each edge, [P+1]
        starts, answers, ends = (
            before[np.searchsorted(edges, places)] for places in (block.starts, block.answers, block.ends)
        )
        if not self.prompts:
            row = pieces[: int(np.searchsorted(edges, block.ends[0]))]
            self.first = [token for piece in row for token in self._ids(piece)], int(answers[0])
        self.prompts += (answers - starts).tolist()
        self.answers += (ends - answers).tolist()
        controls = sum(isinstance(piece, int) for piece in pieces)
        self.text_bytes += len(block.ids) - controls
        self.text_tokens += int(before[-1]) - controls

    def _length(self, text: str) -> int:
        found = self.known.get(text)
        if found is None:
            found = self.known[text] = len(self.tokenizer.encode(text))
        return found

    def _ids(self, piece: str | int) -> list[int]:
        return self.tokenizer.encode(self.tokens.all[piece - BYTES] if isinstance(piece, int) else piece)
