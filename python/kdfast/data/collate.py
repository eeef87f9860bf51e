"""Makes a padded batch of rows: one Rust call for rows of a dataset, torch for plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.data.dataset import Rows, pick_shape

_PADS: dict[str, float] = {
    "attention_mask": 0,
    "labels": IGNORE_INDEX,
    "response_mask": 0,
    "tool_call_mask": 0,
    "tool_name_mask": 0,
    "tool_args_mask": 0,
    "teacher_topk_ids": 0,
    "teacher_topk_logp": -np.inf,
    "teacher_tail_logp": 0,
    "teacher_topk_mask": 0,
    "teacher_sample_ids": 0,
    "teacher_sample_counts": 0,
    "teacher_attention_mask": 0,
}
"""Fields with one entry per token, and the value that pads each (`input_ids` is padded with `pad_id`)."""

_PER_ROW = (
    "tool_should_be_used",
    "required_fields_present",
    "response_start",
    "response_length",
    "teacher_length",
    "teacher_prefix_ids",
    "source",
    "row",
)


def collate_kd_batch(
    rows: Rows | Sequence[Mapping[str, Any]], *, shapes: Sequence[int] | None = None, pad_id: int = 0
) -> dict[str, Tensor]:
    """Collates rows into one batch, padded up to the smallest shape that holds the longest of them.

    Args:
        rows: `KDDataset.__getitems__(indices)` (one Rust call), or the dicts that `KDDataset[i]` gives.
        shapes: padded lengths in tokens, ascending; None = the dataset's own (for dicts: the longest row's length).
        pad_id: fills `input_ids` where `attention_mask` is 0.

    Returns:
        the batch contract: `input_ids`, `attention_mask`, `labels` [B,T] int64 (labels are already aligned with the
        logits, -100 = not supervised); `response_mask`, `tool_call_mask`, `tool_name_mask`, `tool_args_mask` [B,T]
        bool; `teacher_attention_mask` [B,T] int64; `teacher_prefix_ids` [B,N] int64, -100 after the last;
        `tool_should_be_used`, `required_fields_present` [B] bool; `response_start`, `response_length`,
        `teacher_length`, `row` [B] int64; `source` [B] int8. With a teacher store that knows one of the rows also
        `teacher_topk_ids` [B,T,K] int32, `teacher_topk_logp` [B,T,K] and `teacher_tail_logp` [B,T] float32,
        `teacher_topk_mask` [B,T] bool; where that store holds drawn ids (`teacher.samples`) also `teacher_sample_ids`
        and `teacher_sample_counts` [B,T,S] int32, the distinct ids drawn and how often, then 0.

    Raises:
        DataError: a row is longer than the largest shape.
        ValueError: no rows.

    Examples:
        >>> row = {"input_ids": torch.tensor([5, 6]), "attention_mask": torch.tensor([1, 1])}
        >>> row |= {"labels": torch.tensor([6, -100])}
        >>> collate_kd_batch([row, row], shapes=[4])["labels"]
        tensor([[   6, -100, -100, -100],
                [   6, -100, -100, -100]])
    """
    if not len(rows):
        raise ValueError("rows must not be empty")
    if isinstance(rows, Rows):
        return rows.dataset.collate(rows.indices, shapes=shapes, pad_id=pad_id)
    length = pick_shape(max(len(row["input_ids"]) for row in rows), shapes)
    return _pad_dicts(rows, length, pad_id)


def _pad_dicts(rows: Sequence[Mapping[str, Any]], length: int, pad_id: int) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = {}
    for name, pad in {"input_ids": pad_id, **_PADS}.items():
        known = [row[name] for row in rows if name in row]
        if known:
            batch[name] = torch.stack([_pad(row.get(name), length, pad, known[0]) for row in rows])
    for name in _PER_ROW:
        if all(name in row for row in rows):
            batch[name] = torch.stack([torch.as_tensor(row[name]) for row in rows])
    return batch


def _pad(value: Any, length: int, pad: float, like: Any) -> Tensor:
    """The value [L,...] padded to [length,...]; nothing but padding if the row lacks the field."""
    like = torch.as_tensor(like)
    padded = torch.full((length, *like.shape[1:]), pad, dtype=like.dtype)
    if value is not None:
        value = torch.as_tensor(value)
        padded[: len(value)] = value
    return padded
