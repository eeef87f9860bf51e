"""Cutting a batch to a shape, for callers that do not collate into shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdfast.batch import IGNORE_INDEX
from kdfast.errors import DataError

SEQUENCES = (
    "input_ids",
    "labels",
    "attention_mask",
    "response_mask",
    "tool_call_mask",
    "tool_name_mask",
    "tool_args_mask",
    "teacher_attention_mask",
    "teacher_topk_ids",
    "teacher_topk_logp",
    "teacher_tail_logp",
    "teacher_topk_mask",
    "teacher_sample_ids",
    "teacher_sample_counts",
    "teacher_logits",
    "position_ids",
    "segment_ids",
)
"""Batch fields that must be [B,T] or [B,T,...]. The first of them that a batch has gives T."""

_PER_ROW_KEYS = frozenset({"teacher_prefix_ids"})
"""Batch fields [B,N] that are no sequences, even if N equals T."""


def truncate_batch_to_shape(
    batch: Mapping[str, Any], length: int, *, cut_response: bool = False
) -> dict[str, Any]:
    """Cuts every sequence of a batch to its first `length` positions.

    Sequences are the arrays or tensors [B,T] and [B,T,...]. T is that of `input_ids`; if the batch has none, that of
    `labels`, `attention_mask` or another field of `SEQUENCES`. Everything else (one number per row,
    `teacher_prefix_ids`, lists, texts, None) is left as it is, so lengths still describe the uncut rows.

    Args:
        batch: torch tensors or numpy arrays, a sequence field among them.
        length: positions to keep; a batch that is not longer is returned unchanged.
        cut_response: whether supervised positions may be lost. If a batch does not say which positions are
            supervised, every token counts as one.

    Returns:
        a new dict.

    Raises:
        DataError: a row's response would be cut; no field gives T; a field of `SEQUENCES` is not [B,T] or [B,T,...]
            (a ValueError).
        ValueError: `length` is below 1.

    Example:
        >>> import numpy as np
        >>> batch = {"input_ids": np.ones((1, 4)), "labels": np.array([[-100, 7, -100, -100]]), "id": ["a"]}
        >>> short = truncate_batch_to_shape(batch, 2)
        >>> short["input_ids"].shape, short["id"]
        ((1, 2), ['a'])
    """
    if length < 1:
        raise ValueError(f"length must be at least 1: {length}")
    leading = _leading(batch)
    if length >= leading[1]:
        return dict(batch)
    if not cut_response:
        lost = [row for row, cut in enumerate(_response_ends(batch, length, leading[0])) if cut]
        if lost:
            raise DataError(
                f"the response of row(s) {lost[:8]} does not fit into {length} tokens; "
                "use a longer shape, or cut_response=True to lose its end"
            )

    def is_sequence(key: str, value: Any) -> bool:
        return key not in _PER_ROW_KEYS and _shape(value)[:2] == leading

    return {key: value[:, :length] if is_sequence(key, value) else value for key, value in batch.items()}


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _leading(batch: Mapping[str, Any]) -> tuple[int, int]:
    """B and T of the batch; every sequence field must have them."""
    known = [name for name in SEQUENCES if batch.get(name) is not None]
    if not known:
        raise DataError(
            f"no field gives the length of the batch; it needs one of {', '.join(SEQUENCES)}, and has "
            f"{', '.join(map(str, batch)) or 'no fields'}"
        )
    for name in known:
        if not hasattr(batch[name], "shape"):
            raise DataError(
                f"{name}: must be a tensor or an array [B,T]; rows of different lengths are padded by "
                f"collate_kd_batch: {type(batch[name]).__name__}"
            )
        if len(_shape(batch[name])) < 2:
            raise DataError(
                f"{name}: must be [B,T] or [B,T,...]; give a single row its batch axis with value[None]: "
                f"{list(_shape(batch[name]))}"
            )
    rows, length = _shape(batch[known[0]])[:2]
    for name in known[1:]:
        if _shape(batch[name])[:2] != (rows, length):
            raise DataError(
                f"{name}: must have the {rows} rows and {length} positions of {known[0]}: "
                f"{list(_shape(batch[name]))}"
            )
    return rows, length


def _response_ends(batch: Mapping[str, Any], length: int, rows: int) -> list[bool]:
    """For each row, whether a supervised position lies at `length` or beyond; unknown counts as yes."""
    there = {name for name, value in batch.items() if value is not None}
    known = [field for field in ("labels", "response_mask", "teacher_topk_mask") if field in there]
    if known:
        beyond = [batch[k][:, length:] != (IGNORE_INDEX if k == "labels" else 0) for k in known]
        return [any(bool(part[row].any()) for part in beyond) for row in range(rows)]
    if {"response_start", "response_length"} <= there:
        return [int(end) > length for end in batch["response_start"] + batch["response_length"]]
    if "attention_mask" in there:
        return [bool(row.any()) for row in batch["attention_mask"][:, length:]]
    return [True] * rows
