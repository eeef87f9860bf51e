"""Length-aware KD: a penalty on the answer length that the student is to be expected to produce.

The student's expected length E follows from its probability of the turn end wherever stopping would be a complete
answer, so the loss has a gradient. **Where it matters:** with turn ends among the labels of every answer, plain
cross-entropy already teaches the length. This loss is for students whose turn-end labels are rare, noisy or swamped:
long answers, rows without a turn end beside rows with one, a student that goes on after a finished call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kdfast.config.kd import KDConfig
from kdfast.losses.latency.expected_length import expected_length, log_stop_by
from kdfast.losses.latency.length_plan import LengthPlan, length_plan
from kdfast.losses.latency.log_odds import log_odds
from kdfast.losses.latency.positions import positions_in
from kdfast.losses.rows.numerics import OnNan, handle_bad_rows
from kdfast.losses.term import Term

__all__ = [
    "LengthForm",
    "LengthOptions",
    "LengthPlan",
    "LengthRows",
    "LengthTerm",
    "expected_length",
    "length_aware_kd_loss",
    "length_excess",
    "length_loss_from_log_odds",
    "length_plan",
    "length_rows",
]

LengthForm = Literal["log", "ratio", "quantile"]


@dataclass(frozen=True, kw_only=True)
class LengthOptions:
    """How an expected length becomes a loss.

    Attributes:
        form: `log`: log(E/L) - log(1+h); `ratio`: E/L - 1 - h; `quantile`: log(q0) - log P(len <= L + floor(h L)), for
            cold starts: its gradient does not vanish where the student never stops.
        slope: multiplies every form.
        hinge: h, the relative excess that is free.
        quantile: q0.
        max_new_tokens: where generation is cut, in tokens. It bounds E; `quantile` counts stops of the student's own
            and does not know it.
        hinge_open: None = a hinge (relu) per row; True or False = the caller decides for all rows, by a moving
            average over earlier steps: then a row costs slope * excess with its sign, or exactly 0.

    Raises:
        ValueError: a value out of range.
    """

    form: LengthForm = "log"
    slope: float = KDConfig.length_slope
    hinge: float = KDConfig.length_hinge
    quantile: float = KDConfig.length_quantile
    max_new_tokens: int = KDConfig.max_new_tokens
    hinge_open: bool | None = None

    def __post_init__(self) -> None:
        if self.form not in ("log", "ratio", "quantile"):
            raise ValueError(f"form must be 'log', 'ratio' or 'quantile': {self.form!r}")
        for name in ("slope", "hinge"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0: {value}")
        if not 0 < self.quantile <= 1:
            raise ValueError(f"quantile must be above 0 and at most 1: {self.quantile}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1: {self.max_new_tokens}")


DEFAULT_OPTIONS = LengthOptions()


@dataclass(frozen=True)
class LengthTerm:
    """The length loss, and what the diagnostics are made of.

    With n counted rows, over micro-batches and ranks: `len_kd.frac_penalized` = share of `excess > 0`,
    `len_kd.median_rel_excess` = median of `relative_excess`, mean log(E/L) = mean of `relative_excess.log1p()`.

    Attributes:
        term: the sum over counted rows.
        excess: [R] detached, what stands inside relu() of the form; without the rows of `term.skipped`.
        relative_excess: [R] detached, E/L - 1; the same rows.
    """

    term: Term
    excess: Tensor
    relative_excess: Tensor


@dataclass(frozen=True)
class LengthRows:
    """The length loss row by row, on the device of the log-odds.

    Attributes:
        total: scalar on the graph, the sum of what the rows cost.
        excess: [R] detached, the argument of relu() in the form.
        relative_excess: [R] detached, E/L - 1.
        bad: [R] bool, rows with a log-odds that is not finite; they cost 0.
    """

    total: Tensor
    excess: Tensor
    relative_excess: Tensor
    bad: Tensor


def length_rows(log_odds: Tensor, plan: LengthPlan, options: LengthOptions = DEFAULT_OPTIONS) -> LengthRows:
    """The length loss from EOS log-odds, row by row; it does not wait for the device.

    Args:
        log_odds: [M] as in `length_loss_from_log_odds`.
        plan: the batch's plan.
        options: form, slope, hinge.

    Returns:
        `LengthRows` of the plan's R counted rows.
    """
    broken = ~log_odds.isfinite()
    whole = log_odds.masked_fill(broken, 0.0)
    bad = plan.layout.spread(broken, False).any(1)  # [R]
    expected = expected_length(whole, plan, options.max_new_tokens)
    lengths = plan.counted_lengths.to(expected.device)
    ratio = expected / lengths.to(expected.dtype)
    if options.form == "quantile":
        further = (options.hinge * lengths.double() + 1e-9).floor().long()  # 0.15 * 20 is 3, not 2
        excess = math.log(options.quantile) - log_stop_by(whole, plan, further)
    elif options.form == "ratio":
        excess = ratio - 1 - options.hinge
    else:
        excess = ratio.log() - math.log1p(options.hinge)
    cost = excess.relu() if options.hinge_open is None else excess * float(options.hinge_open)
    total = options.slope * cost.masked_fill(bad, 0.0).sum()
    return LengthRows(total, excess.detach(), ratio.detach() - 1, bad)


def length_loss_from_log_odds(
    log_odds: Tensor, plan: LengthPlan, options: LengthOptions = DEFAULT_OPTIONS, *, nan: OnNan = "raise"
) -> LengthTerm:
    """The length loss from EOS log-odds, however they were made.

    Args:
        log_odds: [M] at the positions of `plan.gate`, row-major; the maths is fp32 (fp64 for fp64).
        plan: the batch's plan.
        options: form, slope, hinge.
        nan: what a row with a log-odds that is not finite does: "raise", or "skip_row" (value 0, no gradient,
            still counted).

    Returns:
        `LengthTerm`, its count the number of counted rows.

    Raises:
        FloatingPointError: a row is not finite, under `nan="raise"`.
        ValueError: as many log-odds as `plan.gate` has positions were not given.

    Example:
        >>> import torch
        >>> batch = {"labels": torch.tensor([[5, 2]]), "response_start": torch.tensor([1])}
        >>> plan = length_plan(batch | {"response_length": torch.tensor([2])}, eos_ids=[2])
        >>> options = LengthOptions(form="ratio", max_new_tokens=4)
        >>> length_loss_from_log_odds(torch.zeros(1), plan, options).term.total  # 2.75 / 2 - 1 - 0.15
        tensor(0.2250)
    """
    rows = length_rows(log_odds, plan, options)
    skipped = handle_bad_rows(rows.bad, plan.numbers.to(rows.bad.device), nan, "log-odds of the turn end")
    kept = ~rows.bad
    return LengthTerm(Term(rows.total, plan.count, skipped), rows.excess[kept], rows.relative_excess[kept])


def length_aware_kd_loss(
    logits: Tensor,
    mask: Tensor,
    batch: Mapping[str, Tensor],
    *,
    eos_ids: Sequence[int],
    options: LengthOptions = DEFAULT_OPTIONS,
    exempt: Tensor | None = None,
    nan: OnNan = "raise",
) -> LengthTerm:
    """Penalises a student whose expected answer is longer than the teacher's.

    Per counted row, with E the student's expected length and L the answer's: slope * relu(log(E/L) - log(1+hinge)),
    or another form of `LengthOptions`. Rows without a turn end (`finish_reason: length`) and exempt rows cost
    exactly 0.

    With turn ends among the labels of every answer, plain cross-entropy already controls length; this loss matters
    where those labels are rare or noisy, or where the student goes on after a finished call.

    Args:
        logits: [N,V] at the positions of `mask`, row-major (`full[mask]`), any floating dtype; fp32 maths.
        mask: [B,T] bool; holds at least the positions of `length_plan(batch, eos_ids).gate`.
        batch: the batch contract, as in `length_plan`.
        eos_ids: ids of the vocabulary that end an answer.
        options: form, slope, hinge.
        exempt: [B] bool, as in `length_plan`.
        nan: as in `length_loss_from_log_odds`.

    Returns:
        `LengthTerm`; its term's count is the number of counted rows.

    Raises:
        FloatingPointError: the student's logits are NaN in a counted row, under `nan="raise"`.
        ValueError: bad `eos_ids`, a mask that lacks a gate position, a field that is missing.

    Example:
        >>> import torch
        >>> batch = {"labels": torch.tensor([[5, 2]]), "response_start": torch.tensor([1])}
        >>> batch |= {"response_length": torch.tensor([2])}
        >>> logits = torch.zeros(2, 9)  # a student that stops with p = 1/9
        >>> out = length_aware_kd_loss(logits, batch["labels"] >= 0, batch, eos_ids=[2])
        >>> out.term.count, round(float(out.relative_excess), 4)  # E = 1 + 8/9 * 9 (1 - (8/9)^254) + 1 = 10
        (1, 4.0)
    """
    if mask.sum() != len(logits):
        raise ValueError(
            f"logits must have one row for each position of mask ({int(mask.sum())}): {len(logits)}"
        )
    plan = length_plan(batch, eos_ids, exempt=exempt)
    picked = logits[positions_in(mask, plan.gate, "gate").to(logits.device)]
    return length_loss_from_log_odds(log_odds(picked, eos_ids), plan, options, nan=nan)


def length_excess(
    student_lengths: Tensor,
    teacher_lengths: Tensor,
    *,
    hinge: float = 0.15,
    slope: float = 1.0,
    exempt: Tensor | None = None,
) -> Tensor:
    """How much longer answers are than the teacher's, from token counts: a metric without a gradient.

    slope * relu((student - teacher) / teacher - hinge) per row; for roll-outs of the student.

    Args:
        student_lengths: [B] tokens, for example the sums of attention masks over answers.
        teacher_lengths: [B] tokens, at least 1.
        hinge: relative excess that is free.
        slope: multiplies the rest.
        exempt: [B] bool, rows excused (0); by the origin's rule the complete answers, see
            `compute_required_fields_present`.

    Returns:
        [B] float32, on no graph.

    Raises:
        ValueError: a teacher length below 1.

    Example:
        >>> import torch
        >>> length_excess(torch.tensor([30, 11]), torch.tensor([20, 10]))
        tensor([0.3500, 0.0000])
    """
    if bool((teacher_lengths < 1).any()):
        raise ValueError(f"teacher_lengths must be at least 1: {int(teacher_lengths.min())}")
    student, teacher = student_lengths.detach().double(), teacher_lengths.detach().double()
    excess = slope * ((student - teacher) / teacher - hinge).clamp(min=0)
    if exempt is not None:
        excess = excess.masked_fill(exempt.bool(), 0.0)
    return excess.float()
