"""The rows of the sample on which a step costs little: logits are what takes time and memory."""

from __future__ import annotations

from torch import Tensor

from kdfast.data import KDDataset
from kdfast.recipes.preflight.looking.loss_places import Batch
from kdfast.recipes.preflight.looking.loss_trial import labels_in, rows_of

MOST_ROWS = 4
_LOGITS = 2_500_000
"""Logits that a step on one batch may form."""


def affordable(batch: Batch, vocab: int, least: int = 1) -> dict[str, Tensor]:
    """The first rows of a batch whose logits are few enough, four at most.

    Args:
        batch: the batch.
        vocab: ids of the student.
        least: this many rows are taken, too, if four times as many logits suffice; one row is always taken.
    """
    rows = min(len(batch["labels"]), MOST_ROWS)
    while rows > 1:
        most = _LOGITS if rows > least else 4 * _LOGITS
        if labels_in(rows_of(batch, range(rows))) * vocab <= most:
            break
        rows -= 1
    return rows_of(batch, range(rows))


def cheapest_rows(rows: KDDataset) -> list[int]:
    """The numbers of the rows with the fewest labels, four at most; those without a label come last."""

    def cost(row: int) -> tuple[bool, int, int]:
        spans = rows.store.row(int(rows.rows[row]))["supervised"]
        labels = sum(int(end) - int(start) for start, end in spans)
        return not labels, labels, int(rows.lengths[row])

    return sorted(range(len(rows)), key=cost)[:MOST_ROWS]
