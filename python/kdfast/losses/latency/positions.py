"""Where things are: masks [B,T] as flat indices, spans of responses, entries of rows side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


def positions_in(mask: Tensor, wanted: Tensor, name: str = "wanted") -> Tensor:
    """Where the wanted positions stand among those of a mask, both in row-major order.

    `logits[positions_in(mask, wanted)]` are the logits at `wanted`, for `logits = full[mask]`.

    Args:
        mask: [B,T] bool.
        wanted: [B,T] bool, nowhere outside the mask.
        name: what the wanted positions are called in the message.

    Returns:
        [M] int64.

    Raises:
        ValueError: the shapes differ, or a wanted position is outside the mask.

    Example:
        >>> mask = torch.tensor([[True, False, True], [False, True, True]])
        >>> positions_in(mask, torch.tensor([[False, False, True], [False, False, True]]))
        tensor([1, 3])
    """
    if mask.shape != wanted.shape:
        raise ValueError(f"mask must have the shape of the batch {list(wanted.shape)}: {list(mask.shape)}")
    mask, wanted = mask.bool(), wanted.to(mask.device)
    missing = (wanted & ~mask).any(1)
    if bool(missing.any()):
        raise ValueError(f"mask must hold every {name} position, row(s): {missing.nonzero()[:8, 0].tolist()}")
    return (mask.flatten().cumsum(0) - 1)[wanted.flatten()]


def batch_field(batch: Mapping[str, Tensor], name: str) -> Tensor:
    """A field that the batch must have.

    Raises:
        ValueError: it has not.
    """
    if name not in batch:
        raise ValueError(f"batch lacks a field that an enabled loss needs: {name}")
    return batch[name]


def row_numbers(batch: Mapping[str, Tensor]) -> Tensor:
    """What messages call the rows [B]: their index in the dataset where known, else their place in the batch."""
    labels = batch_field(batch, "labels")
    return batch.get("row", torch.arange(len(labels), device=labels.device))


def response_columns(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """First and last column [B] whose logits predict a token of the (last) response.

    Response token i (from 1) is predicted at column response_start - 2 + i. The first column is -1 where nothing
    stands before the response; the last one is before the first where there is no response, and may lie beyond
    the batch where the response was cut.

    Example:
        >>> start, length = torch.tensor([3]), torch.tensor([2])
        >>> response_columns({"response_start": start, "response_length": length})
        (tensor([2]), tensor([3]))
    """
    start = batch_field(batch, "response_start").long()
    return start - 1, start + batch_field(batch, "response_length").long() - 2


@dataclass(frozen=True)
class Layout:
    """The entries of a mask as a dense matrix [R,W] of the R rows that have any, the last entry in the last column.

    Attributes:
        rows: [R] int64, places of these rows in the batch.
        row: [M] int64, the matrix row of each entry, entries in row-major order.
        slot: [M] int64, its column.
        column: [M] int64, the column in the batch that it came from.
        width: W, at least 1.
    """

    rows: Tensor
    row: Tensor
    slot: Tensor
    column: Tensor
    width: int

    @classmethod
    def of(cls, mask: Tensor) -> Layout:
        """The layout of a mask [B,T].

        Example:
            >>> Layout.of(torch.tensor([[True, False, True], [False] * 3, [True, False, False]])).slot
            tensor([0, 1, 1])
        """
        counts = mask.sum(1)
        rows = counts.nonzero()[:, 0]
        source, column = mask.nonzero(as_tuple=True)
        row = ((counts > 0).cumsum(0) - 1)[source]
        width = max(int(counts.max()), 1) if len(counts) else 1
        slot = mask.cumsum(1)[source, column] - 1 + width - counts[source]
        return cls(rows, row, slot, column, width)

    def spread(self, values: Tensor, pad: float) -> Tensor:
        """Values [M] in their places, `pad` elsewhere: [R,W], differentiable.

        Raises:
            ValueError: there are not M values.
        """
        if values.shape != self.row.shape:
            raise ValueError(
                f"log_odds must have one entry a planned position ({len(self.row)}): {list(values.shape)}"
            )
        device = values.device
        matrix = torch.full((len(self.rows), self.width), pad, dtype=values.dtype, device=device)
        return matrix.index_put((self.row.to(device), self.slot.to(device)), values)
