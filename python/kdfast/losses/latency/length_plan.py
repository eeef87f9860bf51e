"""Which positions and rows the length loss looks at: made from the batch alone, before any forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdfast.losses.latency.log_odds import check_ids
from kdfast.losses.latency.positions import Layout, batch_field, response_columns, row_numbers


@dataclass(frozen=True)
class LengthPlan:
    """The answers whose length counts, and the positions where each may end.

    Attributes:
        gate: [B,T] bool, label-aligned positions where stopping is a complete answer; their EOS log-odds are
            needed. Nothing in rows that are not counted.
        lengths: [B] int64, answer tokens L, turn end included.
        counted: [B] bool.
        skipped: rows left out, by reason: `cut` (the answer's last label is no EOS id: no EOS was seen), `exempt`.
        numbers: [R] int64, what messages call the counted rows.
        layout: where the entries of `gate` stand, one matrix row a counted row; the last column is L's own.
        steps: [R,W] int64, the answer token i = 1..L that each entry of the layout predicts; 0 = padding.
    """

    gate: Tensor
    lengths: Tensor
    counted: Tensor
    skipped: Mapping[str, int]
    numbers: Tensor
    layout: Layout = field(repr=False)
    steps: Tensor = field(repr=False)

    @property
    def count(self) -> int:
        """Counted rows."""
        return len(self.numbers)

    @property
    def counted_lengths(self) -> Tensor:
        """L of the counted rows: [R] int64."""
        return self.lengths[self.layout.rows]


def length_plan(
    batch: Mapping[str, Tensor],
    eos_ids: Sequence[int],
    *,
    exempt: Tensor | None = None,
    stoppable: Tensor | None = None,
) -> LengthPlan:
    """Plans the length loss of a batch.

    The gate is open at the last token L of the (last) answer. In a row whose answer holds tool calls it is also open
    at every position after the last call: the answer is complete there. It is never open inside a call or between
    parallel calls.

    Args:
        batch: `labels` [B,T] int64, `response_start`, `response_length` [B]; where known `tool_call_mask` [B,T],
            `tool_should_be_used`, `required_fields_present` [B] bool, `row` [B].
        eos_ids: the ids that end an answer.
        exempt: [B] bool, rows excused; None = rows whose length is no valid target, since they should call and lack
            required fields of their call.
        stoppable: [B,T] bool, label-aligned positions of the answer where stopping is complete, in place of the rule
            above; L's own position is added.

    Raises:
        ValueError: `eos_ids` is empty or holds a negative id, a mask has the wrong shape, or the batch lacks a field.

    Example:
        >>> batch = {"labels": torch.tensor([[-100, 5, 6, 2]]), "response_start": torch.tensor([2])}
        >>> batch |= {"response_length": torch.tensor([3])}
        >>> plan = length_plan(batch, [2])
        >>> plan.gate.tolist(), plan.count, dict(plan.skipped)
        ([[False, False, False, True]], 1, {'cut': 0, 'exempt': 0})
    """
    labels = batch_field(batch, "labels")
    lengths = batch_field(batch, "response_length").long()
    first, last = response_columns(batch)
    ended = _ends_with(labels, last, check_ids(eos_ids)) & (lengths > 0)
    excused = _exempt(batch, ended) if exempt is None else exempt.to(ended.device).bool()
    if excused.shape != ended.shape:
        raise ValueError(f"exempt must be {list(ended.shape)}: {list(excused.shape)}")
    counted = ended & ~excused
    columns = torch.arange(labels.shape[1], device=labels.device)
    inside = (columns >= first[:, None]) & (columns <= last[:, None])
    stop = _after_calls(batch, inside) if stoppable is None else stoppable.to(labels.device).bool()
    if stop.shape != labels.shape:
        raise ValueError(f"stoppable must be {list(labels.shape)}: {list(stop.shape)}")
    gate = ((stop & inside) | (columns == last[:, None])) & counted[:, None]
    layout = Layout.of(gate)
    steps = layout.spread(layout.column - first[layout.rows][layout.row] + 1, 0)
    skipped = {"cut": int((~ended).sum()), "exempt": int((ended & excused).sum())}
    return LengthPlan(gate, lengths, counted, skipped, row_numbers(batch)[layout.rows], layout, steps)


def _ends_with(labels: Tensor, last: Tensor, ids: Sequence[int]) -> Tensor:
    """Whether the label at column `last` is one of the ids: [B] bool; no where the column is outside the batch."""
    held = (last >= 0) & (last < labels.shape[1])
    found = labels.gather(1, last.clamp(0, labels.shape[1] - 1)[:, None])[:, 0]
    return held & torch.isin(found, torch.tensor(ids, device=labels.device))


def _exempt(batch: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Rows that should call and whose own call lacks required fields: [B] bool."""
    if "tool_should_be_used" not in batch or "required_fields_present" not in batch:
        return torch.zeros_like(like)
    return batch["tool_should_be_used"].bool() & ~batch["required_fields_present"].bool()


def _after_calls(batch: Mapping[str, Tensor], inside: Tensor) -> Tensor:
    """Positions after the last call token of the answer, in rows that have one: [B,T] bool."""
    if "tool_call_mask" not in batch:
        return torch.zeros_like(inside)
    call = batch["tool_call_mask"].bool() & inside
    to_come = call.flip(1).cumsum(1).flip(1) > 0  # call tokens here or further on
    return ~to_come & call.any(1, keepdim=True)
