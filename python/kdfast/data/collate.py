"""Makes a padded batch of rows: one Rust call for rows of a dataset, torch for plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.data.dataset import Rows, pick_shape
from kdfast.data.dict_rows import Fields, read_rows

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

PER_ROW = (
    "tool_should_be_used",
    "required_fields_present",
    "response_start",
    "response_length",
    "teacher_length",
    "teacher_prefix_ids",
    "source",
    "row",
)
"""Fields with one value a row; all others are [B,T] or [B,T,K]."""

_FIELDS = Fields(
    per_token=("input_ids", *_PADS),
    per_row=PER_ROW,
    lists=("teacher_prefix_ids",),
    wide=("teacher_topk_ids", "teacher_topk_logp", "teacher_sample_ids", "teacher_sample_counts"),
    of_all=("input_ids", "attention_mask", "labels", "response_mask", *PER_ROW),
)


def collate_kd_batch(
    rows: Rows | Sequence[Mapping[str, Any]],
    *,
    shapes: Sequence[int] | None = None,
    pad_id: int = 0,
    keep: Sequence[str] = (),
) -> dict[str, Any]:
    """Collates rows into one batch, padded up to the smallest shape that holds the longest of them.

    Rows that are dicts may have the fields below and no others, so that a misspelt field is found. A row may lack a
    teacher's field, a call's mask or `teacher_attention_mask` that others have: it is padded. Every other field must
    be in all rows or in none. Names, texts and other values of your own are collected with `keep`.

    Args:
        rows: `KDDataset.__getitems__(indices)` (one Rust call), or dicts such as those that `KDDataset[i]` gives:
            `input_ids` [L], and other fields without their batch axis.
        shapes: padded lengths in tokens, ascending; None = the dataset's own (for dicts: the longest row's length).
        pad_id: fills `input_ids` where `attention_mask` is 0.
        keep: names of further fields of dicts. Each comes back as a list with one value per row, as it was given.

    Returns:
        the batch contract: `input_ids`, `attention_mask`, `labels` [B,T] int64 (labels are already aligned with the
        logits, -100 = not supervised); `response_mask`, `tool_call_mask`, `tool_name_mask`, `tool_args_mask` [B,T]
        bool; `teacher_attention_mask` [B,T] int64; `teacher_prefix_ids` [B,N] int64, -100 after the last;
        `tool_should_be_used`, `required_fields_present` [B] bool; `response_start`, `response_length`,
        `teacher_length`, `row` [B] int64; `source` [B] int8. With a teacher store that knows one of the rows also
        `teacher_topk_ids` [B,T,K] int32, `teacher_topk_logp` [B,T,K] and `teacher_tail_logp` [B,T] float32,
        `teacher_topk_mask` [B,T] bool; where that store holds drawn ids (`teacher.samples`) also `teacher_sample_ids`
        and `teacher_sample_counts` [B,T,S] int32, the distinct ids drawn and how often, then 0. The fields of `keep`
        are lists.

    Raises:
        DataError: a row is longer than the largest shape; a dict has an unknown field, lacks a field that others
            have, or a field has not one entry per token. The message names field and rows.
        ValueError: no rows; `keep` names a field of the batch, or the rows are not dicts.

    Examples:
        >>> row = {"input_ids": torch.tensor([5, 6]), "attention_mask": torch.tensor([1, 1])}
        >>> row |= {"labels": torch.tensor([6, -100]), "id": "a"}
        >>> batch = collate_kd_batch([row, row], shapes=[4], keep=["id"])
        >>> batch["labels"]
        tensor([[   6, -100, -100, -100],
                [   6, -100, -100, -100]])
        >>> batch["id"]
        ['a', 'a']
    """
    if not len(rows):
        raise ValueError("rows must not be empty")
    if isinstance(rows, Rows):
        if keep:
            raise ValueError(
                f"keep is for rows that are dicts; find a row's metadata by the batch's field 'row': {list(keep)}"
            )
        return rows.dataset.collate(rows.indices, shapes=shapes, pad_id=pad_id)
    read = read_rows(rows, _FIELDS, keep)
    length = pick_shape(max(len(row["input_ids"]) for row in read), shapes)
    return _pad_dicts(read, length, pad_id) | {name: [row[name] for row in rows] for name in keep}


def _pad_dicts(rows: Sequence[Mapping[str, Tensor]], length: int, pad_id: int) -> dict[str, Any]:
    batch: dict[str, Any] = {}
    for name, pad in {"input_ids": pad_id, **_PADS}.items():
        known = [row[name] for row in rows if name in row]
        if known:
            batch[name] = torch.stack([_pad(row.get(name), length, pad, known[0]) for row in rows])
    for name in PER_ROW:
        values = [row[name] for row in rows if name in row]
        if values and name in _FIELDS.lists:
            longest = max(values, key=len)
            values = [_pad(value, len(longest), IGNORE_INDEX, longest) for value in values]
        if values:
            batch[name] = torch.stack(values)
    return batch


def _pad(value: Tensor | None, length: int, pad: float, like: Tensor) -> Tensor:
    """The value [L,...] padded to [length,...]; nothing but padding if the row lacks the field."""
    padded = torch.full((length, *like.shape[1:]), pad, dtype=like.dtype)
    if value is not None:
        padded[: len(value)] = value
    return padded
