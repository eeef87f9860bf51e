"""The entry of `hidden_state`: hidden states of chosen layers against a live teacher's; it may learn projectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from kdfast.config.kd import KDConfig
from kdfast.losses.entries.entry import (
    Batch,
    Entry,
    EntryPlan,
    Found,
    Layers,
    Positions,
    RowValues,
    State,
    TermSpec,
    View,
)
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.latency.positions import batch_field, row_numbers
from kdfast.losses.token.hidden_state import hidden_state_rows


@dataclass(frozen=True)
class _Detail:
    """Counted positions [B,T'] and the dataset's row of each position [B*T']."""

    mask: Tensor
    numbers: Tensor


class HiddenState(Entry):
    """Counts every token but the first of each row; the value of a position is the mean over the pairs of layers."""

    name = "hidden_state"
    specs = (
        TermSpec(
            name="hidden_state",
            weight="hidden_state_weight",
            field="a live teacher's hidden states",
            remedy="run the teacher beside the student (teacher.live: true)",
            present=lambda row: row.live_teacher,
            live=True,
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`."""
        mask = batch_field(batch, "attention_mask")[:, : positions.width].bool()
        if "position_ids" in batch:  # several segments in a row: each has a first token
            mask = mask & (batch["position_ids"][:, : positions.width] > 0)
        else:
            mask = mask & (torch.arange(positions.width, device=mask.device) > 0)
        numbers = row_numbers(batch).repeat_interleave(positions.width)
        detail = _Detail(mask, numbers)
        return EntryPlan(counts={"hidden_state": float(mask.sum())}, detail=detail, teacher="live")

    def layers(self, kd: KDConfig) -> Layers:
        """See `Entry.layers`."""
        if not kd.hidden_state_weight:
            return Layers()
        student, teacher = _pairs(kd)
        return Layers(student=student, teacher=teacher)

    def module(self, kd: KDConfig, widths: tuple[int, int]) -> nn.Module | None:
        """A linear map from the student's width to the teacher's for each pair, where these differ."""
        student, teacher = widths
        if student == teacher or not kd.hidden_state_weight:
            return None
        return nn.ModuleList(nn.Linear(student, teacher, bias=False) for _ in _pairs(kd)[0])

    def loss(self, view: View, plan: EntryPlan, state: State | None, settings: LossSettings) -> Found:
        """See `Entry.loss`.

        Raises:
            ValueError: there is no live teacher, or the widths differ and there is no projector.
        """
        kd, detail = settings.kd, cast("_Detail", plan.detail)
        pairs = list(zip(*_pairs(kd), strict=True))
        others = view.teacher.layers if view.teacher is not None else {}
        if any(ours not in view.hidden or theirs not in others for ours, theirs in pairs):
            raise ValueError(
                "kd.hidden_state_weight: needs hidden states of the student and of a live teacher"
            )
        values, bad = [], []
        for number, (ours, theirs) in enumerate(pairs):
            student, teacher = view.hidden[ours], others[theirs]
            if view.module is not None:
                student = cast("nn.ModuleList", view.module)[number](student)
            one, broken = hidden_state_rows(student, teacher, detail.mask, kd.hidden_state_form)  # [B,T']
            values.append(one)
            bad.append(broken)
        term = RowValues(
            total=torch.stack(values).mean(0).sum(),
            count=plan.counts["hidden_state"],
            bad=torch.stack(bad).any(0).flatten(),  # [B*T']
            numbers=detail.numbers,
            what="hidden_state: hidden states",
        )
        return Found(terms={"hidden_state": term})


def _pairs(kd: KDConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The student's layers and the teacher's; last to last where the config leaves it open."""
    ours, theirs = kd.hidden_state_student_layers, kd.hidden_state_teacher_layers
    return ((-1,), (-1,)) if ours is None or theirs is None else (ours, theirs)
