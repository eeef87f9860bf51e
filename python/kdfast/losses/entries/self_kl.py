"""The entry of `self_kl`: the divergence from the student as it was when quantisation began (self-distillation)."""

from __future__ import annotations

from typing import cast

from kdfast.losses.entries.dense_rows import DenseRows, divergence_from
from kdfast.losses.entries.entry import Batch, Entry, EntryPlan, Found, Positions, State, View
from kdfast.losses.entries.settings import LossSettings


class SelfKL(Entry):
    """At every supervised position. Its weight is no key of `kd`: the trainer switches it on in the middle of a run."""

    name = "self_kl"
    specs = ()

    def enabled(self, settings: LossSettings) -> tuple[str, ...]:
        """See `Entry.enabled`."""
        return ("self_kl",) if settings.self_kl_weight > 0 else ()

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`."""
        rows = DenseRows(index=positions.index, numbers=positions.numbers)
        return EntryPlan(counts={"self_kl": float(len(positions.index))}, detail=rows, teacher="self")

    def loss(self, view: View, plan: EntryPlan, state: State | None, settings: LossSettings) -> Found:
        """See `Entry.loss`.

        Raises:
            ValueError: there is no earlier state of the student.
        """
        if view.self_teacher is None:
            raise ValueError("self_kl: needs the output of the student's earlier state")
        rows = cast("DenseRows", plan.detail)
        term = divergence_from(view.self_teacher, view, rows, settings, term="self_kl")
        return Found(terms={"self_kl": term})
