"""Rows of a batch beside what the token store says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.data import KDDataset

Batch = dict[str, Tensor]
Bools = NDArray[np.bool_]

LONGEST = 100
"""Characters of a decoded text that are shown."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a batch, and the same row in the token store.

    Attributes:
        number: the row of the sample, from 0.
        fields: the batch's fields of this row, without their batch axis.
        ids: [T] the token ids, padding included.
        end: the number of tokens, by `attention_mask`.
        stored: the row in the store, without the turns that are dropped because it is too long.
    """

    number: int
    fields: dict[str, NDArray[Any]]
    ids: NDArray[np.int64]
    end: int
    stored: dict[str, Any]

    @property
    def learned(self) -> Bools:
        """[end] whether each token is a target: it has a label, or is in `response_mask`."""
        targets = (self.fields["labels"] != IGNORE_INDEX) | self.fields["response_mask"]  # [T]
        return of_tokens(targets, self.end)

    def inside(self, spans: Iterable[Sequence[int]]) -> Bools:
        """[end] whether each token is in one of the spans."""
        marked = np.zeros(self.end, dtype=bool)
        for start, end in spans:
            marked[start:end] = True
        return marked

    @property
    def answers(self) -> Bools:
        """[end] whether each token is to be learned, ends of turns included."""
        return self.inside(self.stored["supervised"])

    @property
    def turn_ends(self) -> Bools:
        """[end] whether each token ends a turn that is to be learned."""
        return self.inside(self.stored["spans"]["turn_end"]) & self.answers


def of_tokens(targets: Bools, end: int) -> Bools:
    """[end] which tokens are meant: a mask over targets describes at t the token t + 1."""
    return np.concatenate([[False], targets[: end - 1]])[:end]


def rows_of(batches: Sequence[Batch], sample_rows: KDDataset) -> list[Row]:
    """The rows of all batches, in order.

    Raises:
        DataError: a row of the sample cannot be cut to its largest shape.
    """
    return [
        Row(
            number=number,
            fields={name: value[place].numpy() for name, value in batch.items()},
            ids=batch["input_ids"][place].numpy(),
            end=int(batch["attention_mask"][place].sum()),
            stored=sample_rows.store.row(int(sample_rows.rows[number]), sample_rows.shapes[-1]),
        )
        for batch in batches
        for place, number in enumerate(batch["row"].tolist())
    ]


def where(rows: Sequence[Row], wrong: Callable[[Row], Bools], sample_rows: KDDataset) -> str:
    """How many tokens are wrong, and the first of them in words; "" = none is."""
    found = [(row, np.flatnonzero(wrong(row))) for row in rows]
    found = [(row, places) for row, places in found if len(places)]
    if not found:
        return ""
    row, places = found[0]
    token = sample_rows.tokenizer.decode([int(row.ids[places[0]])])
    count = sum(len(places) for _, places in found)
    return (
        f"{count} token(s) in {len(found)} of {len(rows)} rows; the first is token {places[0]} of row {row.number} of "
        f"the sample, {token!r}"
    )


def said(ids: NDArray[np.int64], sample_rows: KDDataset) -> str:
    """What tokens say, with escapes; the middle of a long text is left out."""
    text = sample_rows.tokenizer.decode(ids.tolist())
    if len(text) <= LONGEST:
        return repr(text)
    half = LONGEST // 2
    return f"{text[:half]!r} ... {text[-half:]!r}"
