"""Reads rows that are plain dicts into tensors, and says which field of which row is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdfast.errors import DataError

_ELSEWHERE = {
    "teacher_logits": "a batch has no dense logits; give them to the loss as `kdfast.losses.DenseTeacher`",
    "teacher_target_ids": "the teacher's tokens are `labels`; `source` 0 says that they are the teacher's",
    "loss_mask": "positions that teach nothing have label -100, and False in `response_mask`",
}
"""Fields of other trainers' rows, and where kdfast has them."""


@dataclass(frozen=True)
class Fields:
    """The fields that a row may have.

    Attributes:
        per_token: fields [L] or [L,K], with one entry for each of `input_ids`.
        per_row: fields of one value, or [N] if they are among `lists`.
        lists: the fields [N] of a row whose N is any number.
        wide: the fields [L,K]; K is the same in all rows.
        of_all: fields that all rows have, or none.
    """

    per_token: tuple[str, ...]
    per_row: tuple[str, ...]
    lists: tuple[str, ...]
    wide: tuple[str, ...]
    of_all: tuple[str, ...]


def read_rows(
    rows: Sequence[Mapping[str, Any]], fields: Fields, keep: Sequence[str]
) -> list[dict[str, Tensor]]:
    """The rows with every field of a batch as a tensor; the fields of `keep` are left out.

    A value of None counts as an absent field.

    Args:
        rows: the rows.
        fields: what a row may have.
        keep: the names of the user's own fields.

    Raises:
        DataError: a field is unknown, missing or of a wrong shape.
        ValueError: `keep` is a text, or names a field of a batch.
    """
    known = (*fields.per_token, *fields.per_row)
    taken = sorted(set(keep) & set(known))
    if isinstance(keep, str) or taken:
        raise ValueError(f"keep must be a list of names that are no fields of a batch: {taken or keep!r}")
    _check_names(rows, known, keep)
    given = [
        {name: value for name, value in row.items() if value is not None or name in keep} for row in rows
    ]
    for name in (*fields.of_all, *keep):
        _check_all_or_none(given, name, needed=name == "input_ids" or name in keep)
    read = [
        {name: _tensor(name, value, index) for name, value in row.items() if name in known}
        for index, row in enumerate(given)
    ]
    for index, row in enumerate(read):
        _check_shapes(row, index, fields)
    for name in fields.wide:
        _check_widths(read, name)
    return read


def _check_names(rows: Sequence[Mapping[str, Any]], known: Sequence[str], keep: Sequence[str]) -> None:
    unknown = next((name for row in rows for name in row if name not in known and name not in keep), None)
    if unknown is None:
        return
    close = difflib.get_close_matches(unknown, known, n=1, cutoff=0.75)
    if unknown in _ELSEWHERE:
        hint = f"; {_ELSEWHERE[unknown]}. Remove it,"
    elif close:
        hint = f", did you mean '{close[0]}'? Rename it, remove it,"
    else:
        hint = "; remove it,"
    raise DataError(
        f"{unknown}: unknown field{hint} or name it in keep=[...] to have its values as a list: "
        f"{_rows(index for index, row in enumerate(rows) if unknown in row)}"
    )


def _check_all_or_none(rows: Sequence[Mapping[str, Any]], name: str, needed: bool) -> None:
    lacking = [index for index, row in enumerate(rows) if name not in row]
    if not lacking or (len(lacking) == len(rows) and not needed):
        return
    if len(lacking) < len(rows):
        having = _rows(index for index in range(len(rows)) if index not in lacking)
        raise DataError(
            f"{name}: {having} have it, {_rows(lacking)} lack it; give it to every row"
            f"{'' if needed else ' or to none'}"
        )
    close = difflib.get_close_matches(name, {key for row in rows for key in row}, n=1, cutoff=0.75)
    hint = f", did you mean '{close[0]}'?" if close else ""
    raise DataError(f"{name}: no row has this field{hint}; the first has {', '.join(map(str, rows[0]))}")


def _tensor(name: str, value: Any, index: int) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: row {index} cannot be made a tensor ({error}): {value!r:.80}") from error


def _check_shapes(row: Mapping[str, Tensor], index: int, fields: Fields) -> None:
    ids = row["input_ids"]
    if ids.dim() != 1 or not len(ids):
        raise DataError(
            f"input_ids: row {index} must be the token ids [L] of one row, at least one: {list(ids.shape)}"
        )
    for name, value in row.items():
        if name in fields.per_token:
            letters, axes = ("[L,K]", 2) if name in fields.wide else ("[L]", 1)
            if value.dim() != axes:
                raise DataError(f"{name}: row {index} must be {letters}: {list(value.shape)}")
            if len(value) != len(ids):
                raise DataError(
                    f"{name}: row {index} must have one entry for each of the {len(ids)} input_ids: {len(value)}"
                )
        else:
            wanted, axes = ("a list [N]", 1) if name in fields.lists else ("one value", 0)
            if value.dim() != axes:
                raise DataError(f"{name}: row {index} must be {wanted}: {list(value.shape)}")


def _check_widths(rows: Sequence[Mapping[str, Tensor]], name: str) -> None:
    widths = {index: row[name].shape[1] for index, row in enumerate(rows) if name in row}
    first = next(iter(widths.items()), None)
    for index, width in widths.items():
        if first is not None and width != first[1]:
            raise DataError(
                f"{name}: row {index} must have the {first[1]} entries a token of row {first[0]}: {width}"
            )


def _rows(indices: Iterable[int]) -> str:
    chosen = list(indices)
    return f"row(s) {chosen[:8]}" + (f" and {len(chosen) - 8} more" if len(chosen) > 8 else "")
