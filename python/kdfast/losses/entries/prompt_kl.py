"""The entry of `prompt_kl`: the divergence from a live teacher where nothing is learned by labels, as in the prompt."""

from __future__ import annotations

from typing import cast

import torch

from kdfast.losses.entries.dense_rows import DenseRows, divergence_from
from kdfast.losses.entries.entry import (
    Batch,
    Entry,
    EntryPlan,
    Found,
    Positions,
    State,
    TermSpec,
    View,
)
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.latency.positions import batch_field, row_numbers


class PromptKL(Entry):
    """Counts the tokens that are not supervised and have a next token in their row, or segment of it.

    The first token counts too: its hidden state is out of scale, but its next-token distribution is one like others.
    """

    name = "prompt_kl"
    specs = (
        TermSpec(
            name="prompt_kl",
            weight="prompt_kl_weight",
            field="a live teacher's distribution",
            remedy="run the teacher beside the student (teacher.live: true)",
            present=lambda row: row.live_teacher,
            live=True,
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`."""
        width = positions.width
        token = batch_field(batch, "attention_mask")[:, :width].bool()
        follows = torch.zeros_like(token)
        follows[:, :-1] = token[:, 1:]
        if "position_ids" in batch:  # several segments in a row: the next one's first token follows no other
            follows[:, :-1] &= batch["position_ids"][:, 1:width] > 0
        mask = token & follows & ~positions.mask
        row, column = mask.nonzero(as_tuple=True)
        rows = DenseRows(index=row * width + column, numbers=row_numbers(batch).to(row.device)[row])
        return EntryPlan(counts={"prompt_kl": float(len(row))}, detail=rows, teacher="live")

    def loss(self, view: View, plan: EntryPlan, state: State | None, settings: LossSettings) -> Found:
        """See `Entry.loss`.

        Raises:
            ValueError: there is no live teacher.
        """
        if view.teacher is None:
            raise ValueError("kd.prompt_kl_weight: needs the output of a live teacher")
        rows = cast("DenseRows", plan.detail)
        term = divergence_from(view.teacher, view, rows, settings, term="prompt_kl")
        return Found(terms={"prompt_kl": term})
