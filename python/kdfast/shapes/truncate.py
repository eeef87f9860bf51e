"""Cutting a batch to a shape, for callers that do not collate into shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdfast.batch import IGNORE_INDEX
from kdfast.errors import DataError

_PER_ROW_KEYS = frozenset({"teacher_prefix_ids"})
"""Batch fields [B,N] that are no sequences, even if N equals T."""


def _response_ends(batch: Mapping[str, Any], length: int) -> list[bool]:
    """For each row, whether a supervised position lies at `length` or beyond; unknown counts as yes."""
    known = [field for field in ("labels", "response_mask", "teacher_topk_mask") if field in batch]
    if known:
        beyond = [batch[k][:, length:] != (IGNORE_INDEX if k == "labels" else 0) for k in known]
        return [any(bool(part[row].any()) for part in beyond) for row in range(len(beyond[0]))]
    if "response_start" in batch and "response_length" in batch:
        return [int(end) > length for end in batch["response_start"] + batch["response_length"]]
    if "attention_mask" in batch:
        return [bool(row.any()) for row in batch["attention_mask"][:, length:]]
    return [True] * len(batch["input_ids"])


def truncate_batch_to_shape(
    batch: Mapping[str, Any], length: int, *, cut_response: bool = False
) -> dict[str, Any]:
    """Cuts every sequence of a batch to its first `length` positions.

    Sequences are the arrays or tensors [B,T] and [B,T,...], where T is that of `input_ids`. Everything else (one number
    per row, `teacher_prefix_ids`, lists, texts) is left as it is, so lengths still describe the uncut rows.

    Args:
        batch: torch tensors or numpy arrays, `input_ids` [B,T] among them.
        length: positions to keep; a batch that is not longer is returned unchanged.
        cut_response: whether supervised positions may be lost. Where a batch does not say which positions are
            supervised, every token counts as one.

    Returns:
        a new dict.

    Raises:
        DataError: a row's response would be cut (a ValueError).

    Example:
        >>> import numpy as np
        >>> batch = {"input_ids": np.ones((1, 4)), "labels": np.array([[-100, 7, -100, -100]]), "id": ["a"]}
        >>> short = truncate_batch_to_shape(batch, 2)
        >>> short["input_ids"].shape, short["id"]
        ((1, 2), ['a'])
    """
    if length < 1:
        raise ValueError(f"length must be at least 1: {length}")
    ids = batch["input_ids"]
    if length >= ids.shape[1]:
        return dict(batch)
    if not cut_response:
        lost = [row for row, cut in enumerate(_response_ends(batch, length)) if cut]
        if lost:
            raise DataError(
                f"the response of row(s) {lost[:8]} does not fit into {length} tokens; "
                "use a longer shape, or cut_response=True to lose its end"
            )
    leading = tuple(ids.shape[:2])

    def is_sequence(key: str, value: Any) -> bool:
        return key not in _PER_ROW_KEYS and tuple(getattr(value, "shape", ())[:2]) == leading

    return {key: value[:, :length] if is_sequence(key, value) else value for key, value in batch.items()}
