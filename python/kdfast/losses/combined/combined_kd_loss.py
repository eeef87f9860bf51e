"""All loss terms of a batch at once, from hidden states and the output layer: what training minimises.

The losses of rows (divergence, drawn ids, cross-entropies, the call's first tokens) share one pass over chunks of
logits (`linear_kd`). The few positions that the length and early-tool losses look at are projected once more, in a
second small product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from kdfast.losses.combined.pending import CombinedLoss, PendingLoss
from kdfast.losses.combined.plan import BatchPlan, RowPlan, plan_batch
from kdfast.losses.combined.table import ENTRIES, term_weights
from kdfast.losses.entries.entry import RowValues, State, View
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.rows.linear_kd import LinearKD, linear_rows
from kdfast.losses.rows.maths import Targets
from kdfast.losses.rows.numerics import computing_dtype
from kdfast.losses.rows.teacher import DenseHead, TeacherOutput


@dataclass(frozen=True)
class StepWeights:
    """What is fixed for a whole optimiser step.

    Attributes:
        weights: the weight of each enabled term.
        counts: what each counts, over all micro-batches and ranks.
        states: entry -> what it remembers of earlier steps; an entry that is missing remembers nothing.
    """

    weights: Mapping[str, float]
    counts: Mapping[str, float]
    states: Mapping[str, State] = field(default_factory=dict)

    @property
    def coefficients(self) -> dict[str, float]:
        """Weight / count of each term; a term without positions has the total 0, and any divisor gives 0."""
        return {name: value / (self.counts[name] or 1.0) for name, value in self.weights.items()}


@dataclass(frozen=True)
class StudentOutput:
    """What the forward pass of a micro-batch gave.

    Attributes:
        hidden: [B,T',D] last hidden states of the student.
        head: [V,D] weight of its output layer.
        layers: layer -> [B,T',D] further hidden states, where a term asks for them.
        teacher: what a live teacher gave, where a term needs one.
        self_teacher: what the student's own earlier state gave, where a term needs it.
    """

    hidden: Tensor
    head: Tensor
    layers: Mapping[int, Tensor] = field(default_factory=dict)
    teacher: TeacherOutput | None = None
    self_teacher: TeacherOutput | None = None


def combined_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    batch: Mapping[str, Tensor],
    settings: LossSettings,
    *,
    weights: Mapping[str, float] | None = None,
    counts: Mapping[str, float] | None = None,
    want_best: bool = False,
) -> CombinedLoss:
    """The weighted sum of all enabled terms of one (micro-)batch, and each of them.

    It plans the batch, computes, and reads the result. Training does these apart: see `plan_batch`, `planned_loss`.

    Args:
        hidden: [B,T',D] last hidden states of the student, T' <= T; positions beyond T' are padding in every row.
        weight: [V,D] weight of the output layer.
        batch: the batch contract, on the student's device.
        settings: the config's section `kd` and what else the terms need.
        weights: weights of the enabled terms at this optimiser step; None = `term_weights(settings.kd)`.
        counts: counts of the whole optimiser step (all micro-batches, all ranks); None = this batch is the whole step.
        want_best: also give the likeliest ids.

    Returns:
        `CombinedLoss`.

    Raises:
        DataError: labels or teacher numbers that cannot be right (a ValueError).
        FloatingPointError: a term is not finite, with the dataset's rows, under `kd.on_nan: raise`.
        ValueError: a term is switched on that needs a model beside the student (`hidden_state`, `prompt_kl`).

    Example:
        >>> from kdfast.config import KDConfig
        >>> settings = LossSettings(kd=KDConfig(kl_weight=0, ce_teacher_weight=0, ce_truth_weight=2.0))
        >>> batch = {"labels": torch.tensor([[-100, 1, 2]]), "source": torch.tensor([1])}
        >>> loss = combined_kd_loss(torch.zeros(1, 3, 5), torch.zeros(4, 5), batch, settings)
        >>> round(float(loss.total), 4), {name: term.count for name, term in loss.terms.items()}  # 2 log 4
        (2.7726, {'ce_truth': 2.0})
    """
    plan = plan_batch(
        batch,
        settings,
        vocab_size=len(weight),
        dtype=computing_dtype(weight.dtype),
        width=hidden.shape[1],
    )
    step = StepWeights(
        weights=term_weights(settings.kd) if weights is None else weights,
        counts=plan.counts if counts is None else counts,
    )
    output = StudentOutput(hidden, weight)
    return planned_loss(output, plan.to(hidden.device), step, settings, want_best=want_best).read()


def planned_loss(
    output: StudentOutput,
    plan: BatchPlan,
    step: StepWeights,
    settings: LossSettings,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    want_best: bool = False,
) -> PendingLoss:
    """The same for a batch that was planned before. It does not wait for the device; nothing is refused yet.

    Args:
        output: the student's forward pass (and a live teacher's).
        plan: the batch's plan, on the device, made with the size of the student's vocabulary.
        step: weights, counts and states of the optimiser step.
        settings: settings of the loss.
        modules: entry -> its own parameters.
        want_best: also give the likeliest ids.

    Returns:
        `PendingLoss`: its total is ready for `backward()`; `read()` it afterwards.

    Raises:
        ValueError: the plan was made without the vocabulary's size, or a term lacks the model beside the student.
    """
    if plan.rows is None:
        raise ValueError("plan must be made with vocab_size")
    coefficients, kd = step.coefficients, settings.kd
    picked = output.hidden.flatten(0, 1)[plan.rows.index]  # [N,D]
    targets = replace(
        _targets(plan.rows, output.teacher),
        label_coefficients=_label_coefficients(plan.rows, coefficients),
        kl_coefficients=_kl_coefficients(plan.rows, coefficients),
    )
    best = targets.dense.best(kd.chunk_rows) if want_best and isinstance(targets.dense, DenseHead) else None
    result, values = linear_rows(picked, output.head, targets, chunk_rows=kd.chunk_rows, want_best=want_best)
    terms = _row_terms(result, plan.rows, plan.counts, values.bad_teacher)
    total, found = result.total, {}
    for name, entry_plan in plan.entries.items():
        view = View(
            rows=picked,
            head=output.head,
            chunk_rows=kd.chunk_rows,
            last=output.hidden,
            hidden=output.layers,
            teacher=output.teacher,
            self_teacher=output.self_teacher,
            module=(modules or {}).get(name),
        )
        found[name] = ENTRIES[name].loss(view, entry_plan, step.states.get(name), settings)
    for one in found.values():
        for name, term in one.terms.items():
            total = total + term.total * coefficients[name]
            terms[name] = term
    return PendingLoss(
        total=total,
        terms=terms,
        found=found,
        plans=plan.entries,
        best=result.best,
        teacher_best=best,
        on_nan=kd.on_nan,
    )


def _targets(rows: RowPlan, teacher: TeacherOutput | None) -> Targets:
    """The targets of the fused pass, with the distributions of a live teacher where the plan wants them."""
    if not rows.live:
        return rows.targets
    if teacher is None:
        raise ValueError("kd.kl_weight: the batch was planned for a live teacher; give its output")
    return replace(rows.targets, dense=teacher.at(rows.index), known=rows.known.bool())


def _label_coefficients(rows: RowPlan, coefficients: Mapping[str, float]) -> Tensor:
    """[N,J]: each label's weight times weight / count of the term that its row counts for."""
    parts = [rows.targets.label_coefficients[:, :0]]
    for column in rows.columns.values():
        scales = [own * coefficients[name] for name, own in column.members.items()]
        parts.append(column.weights * torch.stack(scales).sum(0)[:, None])
    return torch.cat(parts, 1)


def _kl_coefficients(rows: RowPlan, coefficients: Mapping[str, float]) -> Tensor:
    """[N]: 0 where no distribution is known."""
    return rows.known if rows.taught is None else rows.known * coefficients[rows.taught]


def _row_terms(
    result: LinearKD, rows: RowPlan, counts: Mapping[str, float], bad_teacher: Tensor
) -> dict[str, RowValues]:
    """The terms inside the fused pass."""
    terms = {}
    if rows.taught is not None:
        terms[rows.taught] = RowValues(
            total=result.kl.sum(),
            count=counts[rows.taught],
            bad=result.bad_kl,
            numbers=rows.numbers,
            what=f"{rows.taught}: logits",
            bad_teacher=bad_teacher if rows.live else None,
        )
    for column in rows.columns.values():
        values = (result.labels[:, column.columns] * column.weights).sum(1)  # [N]
        broken = result.bad_labels[:, column.columns].any(1)
        for name, places in column.places.items():
            terms[name] = RowValues(
                total=values[places].sum(),
                count=counts[name],
                bad=broken[places],
                numbers=rows.numbers[places],
                what=f"{name}: logits",
            )
    return terms
