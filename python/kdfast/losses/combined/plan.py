"""The plan of a batch: made once, on the CPU, before the first forward; it goes to the device with the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from kdfast.losses.combined.table import ENTRIES
from kdfast.losses.entries.entry import Batch, EntryPlan, Positions
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.latency.positions import row_numbers
from kdfast.losses.rows.autograd import NO_DIVERGENCE, RowTargets, prepare
from kdfast.losses.rows.maths import Targets
from kdfast.losses.term import supervised_mask

T = TypeVar("T")
UNKNOWN_VOCAB = 2**31 - 1
"""Stands in for V where only counts are wanted: ids are int32 in the stores, so that no id is dropped."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """The label columns of one entry, as the fused pass takes them.

    Attributes:
        columns: which of the J columns of `RowPlan.targets` they are.
        weights: [N,j], 0 where there is no label.
        members: term -> [N] in the maths' dtype, 1 in the rows that count for it.
        places: term -> [n] int64, the same rows as places among the N.
    """

    columns: slice
    weights: Tensor
    members: Mapping[str, Tensor]
    places: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """What the supervised positions are to learn in one fused pass.

    Attributes:
        index: [N] int64, the positions' places in the flattened [B*T'].
        numbers: [N] int64, the dataset's row of each.
        targets: checked targets, all coefficients 1.
        taught: name of the term that is the divergence; None = no distribution is known in this batch.
        known: [N] in the maths' dtype, 1 where a distribution is known.
        columns: entry -> its label columns.
        live: the divergence is from a teacher beside the student, which `targets` do not hold yet.
    """

    index: Tensor
    numbers: Tensor
    targets: Targets
    taught: str | None
    known: Tensor
    columns: Mapping[str, Column]
    live: bool = False


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What the enabled terms do in a batch.

    Attributes:
        counts: what each enabled term counts, from masks alone.
        entries: entry -> its plan.
        width: T', tokens of the longest row: the columns after it are padding in every row.
        rows: the fused pass; None = the plan was made without the vocabulary's size, for its counts.
    """

    counts: Mapping[str, float]
    entries: Mapping[str, EntryPlan]
    width: int
    rows: RowPlan | None = None

    def needs(self, teacher: Literal["live", "self"]) -> bool:
        """Whether a term needs this model's forward pass beside the student's."""
        return any(plan.teacher == teacher for plan in self.entries.values())

    def to(self, device: torch.device | str) -> BatchPlan:
        """The plan with its tensors on a device."""
        return _moved(self, torch.device(device))


def plan_batch(
    batch: Batch,
    settings: LossSettings,
    *,
    vocab_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    width: int | None = None,
) -> BatchPlan:
    """Plans a batch.

    Args:
        batch: the batch contract; on the CPU, or each look at a mask waits for the device.
        settings: settings of the loss.
        vocab_size: V, rows of the student's output layer; None = only the counts are wanted.
        dtype: dtype of the maths: fp32, or fp64 for an fp64 student.
        width: T', columns of the hidden states that the plan is for; None = up to the batch's last token, as
            `hidden_and_head` gives.

    Raises:
        DataError: a label outside the vocabulary, teacher numbers that cannot be right (a ValueError).
        ValueError: the batch lacks a field.

    Example:
        >>> from kdfast.config.kd import KDConfig
        >>> batch = {"labels": torch.tensor([[-100, 5, 2]]), "source": torch.tensor([1])}
        >>> dict(plan_batch(batch, LossSettings(kd=KDConfig())).counts)
        {'kl': 0.0, 'ce_teacher': 0.0, 'ce_truth': 2.0}
    """
    positions = _positions(batch, vocab_size or UNKNOWN_VOCAB, dtype, width)
    entries: dict[str, EntryPlan] = {}
    for name, entry in ENTRIES.items():
        enabled = entry.enabled(settings)
        if enabled:
            entries[name] = entry.plan(batch, positions, settings, enabled)
    counts = {name: count for plan in entries.values() for name, count in plan.counts.items()}
    rows = None if vocab_size is None else _row_plan(positions, entries)
    # what went into the fused pass need not go to the device a second time
    rest = {name: replace(plan, labels=None, taught=None) for name, plan in entries.items()}
    return BatchPlan(counts=counts, entries=rest, width=positions.width, rows=rows)


def _positions(batch: Batch, vocab: int, dtype: torch.dtype, width: int | None) -> Positions:
    if width is None:
        width = batch["labels"].shape[1]
        if "attention_mask" in batch:
            width = max(int(batch["attention_mask"].sum(1).max()), 1)
    mask = supervised_mask(batch)[:, :width]
    row, column = mask.nonzero(as_tuple=True)
    return Positions(
        mask=mask,
        index=row * width + column,
        rows=row,
        numbers=row_numbers(batch).to(row.device)[row],
        vocab=vocab,
        dtype=dtype,
    )


def _row_plan(positions: Positions, entries: Mapping[str, EntryPlan]) -> RowPlan:
    labelled = {name: plan.labels for name, plan in entries.items() if plan.labels is not None}
    taught = next((plan.taught for plan in entries.values() if plan.taught is not None), None)
    nothing = positions.index.new_empty(len(positions.index), 0)
    known = torch.zeros(len(nothing), dtype=positions.dtype, device=nothing.device)
    if taught is not None:
        known = taught.known.to(positions.dtype)
    targets = RowTargets(
        labels=torch.cat([nothing, *(labels.ids for labels in labelled.values())], 1),
        teacher=taught.teacher if taught is not None else None,
        divergence=taught.divergence if taught is not None else NO_DIVERGENCE,
        kl_coefficients=known,
        temperature=taught.temperature if taught is not None else 1.0,
    )
    prepared = prepare(targets, positions.vocab, positions.dtype, positions.numbers)
    columns, start = {}, 0
    for name, labels in labelled.items():
        stop = start + labels.ids.shape[1]
        absent = prepared.absent[:, start:stop]
        columns[name] = Column(
            columns=slice(start, stop),
            weights=labels.weights.masked_fill(absent, 0.0),
            members={term: rows.to(positions.dtype) for term, rows in labels.members.items()},
            places={term: rows.nonzero()[:, 0] for term, rows in labels.members.items()},
        )
        start = stop
    return RowPlan(
        index=positions.index,
        numbers=positions.numbers,
        targets=prepared,
        taught=taught.term if taught is not None else None,
        known=known,
        columns=columns,
        live=taught is not None and taught.teacher is None,
    )


def _moved(value: T, device: torch.device) -> T:
    """A value with every tensor in it on a device: through dataclasses, mappings and sequences."""
    moved: Any = value
    if isinstance(value, Tensor):
        moved = value.to(device, non_blocking=True)
    elif is_dataclass(value) and not isinstance(value, type):
        changes = {
            field.name: _moved(getattr(value, field.name), device) for field in fields(value) if field.init
        }
        moved = replace(value, **changes)
    elif isinstance(value, Mapping):
        moved = {key: _moved(item, device) for key, item in value.items()}
    elif isinstance(value, tuple | list):
        moved = type(value)(_moved(item, device) for item in value)
    return moved  # type: ignore[no-any-return]
