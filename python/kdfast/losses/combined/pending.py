"""The loss of a micro-batch before and after its numbers have been read from the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdfast.errors import DataError
from kdfast.losses.entries.entry import EntryPlan, Found, RowValues
from kdfast.losses.rows.numerics import OnNan, handle_bad_rows, name_rows
from kdfast.losses.term import Term


@dataclass(frozen=True)
class CombinedLoss:
    """The terms of a batch.

    Attributes:
        total: scalar on the graph, the sum of weight * total / count over the terms.
        terms: each enabled term; the totals of those inside the one fused pass are detached.
        diagnostics: means that are logged beside the loss, as detached sums and counts that add up over micro-batches
            and ranks.
        medians: name -> values that are logged as their median over the rows of a step.
        observed: entry -> name -> number that its state is updated by, summed over micro-batches and ranks.
        left_out: rows that a latency loss cannot use, by `loss.reason`.
        best: [N] int64, the student's likeliest id at each position of `supervised_mask`; empty unless asked for.
        teacher_best: [N] int64, a live teacher's; None unless asked for, or where no term asks that teacher for them.
    """

    total: Tensor
    terms: Mapping[str, Term]
    diagnostics: Mapping[str, Term]
    medians: Mapping[str, list[float]]
    observed: Mapping[str, Mapping[str, float]]
    left_out: Mapping[str, int]
    best: Tensor
    teacher_best: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PendingLoss:
    """The loss of a micro-batch whose numbers are still on the device.

    Attributes:
        total: scalar on the graph.
        terms: each enabled term.
        found: entry -> what `Entry.loss` gave.
        plans: entry -> its plan.
        best: [N] int64, see `CombinedLoss`.
        teacher_best: [N] int64 or None, see `CombinedLoss`.
        on_nan: what a row that is not finite does.
    """

    total: Tensor
    terms: Mapping[str, RowValues]
    found: Mapping[str, Found]
    plans: Mapping[str, EntryPlan] = field(repr=False)
    best: Tensor
    teacher_best: Tensor | None = None
    on_nan: OnNan

    def detached(self) -> PendingLoss:
        """The same off the graph: what is kept of a micro-batch until the step ends."""
        terms = {name: replace(term, total=term.total.detach()) for name, term in self.terms.items()}
        return replace(self, total=self.total.detach(), terms=terms)

    def read(self) -> CombinedLoss:
        """Waits for the device, once, and refuses what cannot be.

        Raises:
            DataError: a model beside the student gave NaN or +inf (a ValueError).
            FloatingPointError: a term is not finite, with the dataset's rows, under `on_nan` "raise".
        """
        numbers = _to_cpu(self._scalars())
        terms = {}
        for name, term in self.terms.items():
            if term.bad_teacher is not None and numbers[f"teacher {name}"]:
                raise DataError(
                    f"{name}: the logits of the model beside the student are NaN or +inf; try teacher.dtype fp32, or "
                    f"fetch the model again, in row(s): {name_rows(term.bad_teacher, term.numbers)}"
                )
            skipped = int(numbers[f"bad {name}"])
            if skipped:
                handle_bad_rows(term.bad, term.numbers, self.on_nan, term.what)
            terms[name] = Term(term.total, term.count, skipped)
        return CombinedLoss(
            total=self.total,
            terms=terms,
            diagnostics=self._diagnostics(numbers),
            medians={
                name: values[kept].tolist()
                for found in self.found.values()
                for name, (values, kept) in found.medians.items()
            },
            observed={
                entry: {name: numbers[f"observed {entry} {name}"] for name in found.observed}
                for entry, found in self.found.items()
                if found.observed
            },
            left_out={reason: rows for plan in self.plans.values() for reason, rows in plan.left_out.items()},
            best=self.best,
            teacher_best=self.teacher_best,
        )

    def _scalars(self) -> dict[str, Tensor]:
        scalars = {f"bad {name}": term.bad.sum() for name, term in self.terms.items()}
        for name, term in self.terms.items():
            if term.bad_teacher is not None:
                scalars[f"teacher {name}"] = term.bad_teacher.sum()
        for entry, found in self.found.items():
            for name, (total, count) in found.diagnostics.items():
                scalars |= {f"sum {name}": total, f"count {name}": count}
            scalars |= {f"observed {entry} {name}": value for name, value in found.observed.items()}
        return scalars

    def _diagnostics(self, numbers: Mapping[str, float]) -> dict[str, Term]:
        means: dict[str, tuple[float, float]] = {}
        for plan in self.plans.values():
            means |= plan.diagnostics
        for found in self.found.values():
            means |= {name: (numbers[f"sum {name}"], numbers[f"count {name}"]) for name in found.diagnostics}
        return {name: Term(torch.tensor(total), count) for name, (total, count) in means.items()}


def _to_cpu(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Many scalars in one copy."""
    if not scalars:
        return {}
    values = torch.stack([value.detach().double() for value in scalars.values()]).tolist()
    return dict(zip(scalars, values, strict=True))
