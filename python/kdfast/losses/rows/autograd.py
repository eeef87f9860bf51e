"""A loss of rows of logits: checks, and the autograd function whose forward pass forms the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.errors import DataError
from kdfast.losses.rows.kernel import Classwise, Comparison, Divergence
from kdfast.losses.rows.maths import Targets, Values, rows_
from kdfast.losses.rows.numerics import (
    OnNan,
    check_rows,
    check_temperature,
    computing_dtype,
    handle_bad_rows,
    name_rows,
)
from kdfast.losses.rows.teacher import SparseTeacher, Teacher, sparse_classes
from kdfast.losses.term import Term


def _no_kernel(_: Classwise) -> Comparison:
    raise AssertionError("rows without a teacher have no divergence")


NO_DIVERGENCE = Divergence("none", _no_kernel)


@dataclass(frozen=True, kw_only=True)
class RowTargets:
    """What N rows are to learn: a divergence from a teacher, labels, or both.

    The total of the rows is `sum_n kl_coefficients[n] * D(n) + sum_nj label_coefficients[n,j] * -log q(labels[n,j])`.

    Attributes:
        labels: [N,J] int64, J labels a row; -100 = none. None = no labels.
        label_coefficients: [N,J], finite; None = 1 each.
        teacher: the teacher of the N rows; None = no divergence.
        divergence: the divergence from the teacher, such as `FORWARD_KL`.
        kl_coefficients: [N], finite, 0 where the teacher's distribution is not known; None = 1 each.
        temperature: temperature T of the divergence: it divides both models' logits, and T^2 multiplies the value
            (T to the divergence's `temperature_power`).

    Example:
        >>> RowTargets(labels=torch.tensor([[1], [-100]])).rows
        2
    """

    labels: Tensor | None = None
    label_coefficients: Tensor | None = None
    teacher: Teacher | None = None
    divergence: Divergence = NO_DIVERGENCE
    kl_coefficients: Tensor | None = None
    temperature: float = 1.0

    @property
    def rows(self) -> int:
        """N.

        Raises:
            ValueError: there is neither a teacher nor a label, or they are not of the same rows.
        """
        counts = {
            len(field)
            for field in (self.labels, self.label_coefficients, self.kl_coefficients)
            if field is not None
        }
        if self.teacher is not None:
            counts.add(self.teacher.rows)
        if len(counts) != 1:
            raise ValueError(f"targets must all have the same number of rows: {sorted(counts)}")
        return counts.pop()


def prepare(targets: RowTargets, vocab: int, dtype: torch.dtype, numbers: Tensor) -> Targets:
    """Checks targets and brings them into the form of the maths.

    Args:
        targets: targets of N rows.
        vocab: the student's vocabulary size.
        dtype: dtype of the maths.
        numbers: [N] the rows' numbers, for messages; on the student's device.

    Raises:
        DataError: a label outside the vocabulary, NaN in the teacher (a ValueError).
        ValueError: shapes that do not match, a temperature that is not finite and > 0 or not the teacher's.
    """
    check_temperature(targets.temperature)
    rows, teacher, device = targets.rows, targets.teacher, numbers.device
    labels = targets.labels if targets.labels is not None else torch.empty(rows, 0, dtype=torch.int64)
    labels = labels.to(device)
    if labels.dim() != 2:
        raise ValueError(f"labels must be [N,J]: {list(labels.shape)}")
    absent = labels == IGNORE_INDEX
    _check_labels(labels, absent, vocab, numbers)
    weights = targets.label_coefficients
    weights = torch.ones(labels.shape, device=device) if weights is None else weights.to(device)
    if weights.shape != labels.shape:
        raise ValueError(f"label_coefficients must be {list(labels.shape)}: {list(weights.shape)}")
    kl = targets.kl_coefficients
    kl = torch.ones(rows, device=device) if kl is None else kl.to(device)
    if kl.shape != (rows,):
        raise ValueError(f"kl_coefficients must be [{rows}]: {list(kl.shape)}")
    if teacher is None:
        kl = torch.zeros_like(kl)
    if isinstance(teacher, SparseTeacher) and targets.temperature != teacher.logprob_temperature:
        raise ValueError(
            f"temperature must be the one of the stored log-probabilities ({teacher.logprob_temperature}), "
            f"because top-k log-probabilities cannot be brought to another: {targets.temperature}"
        )
    sparse = teacher if isinstance(teacher, SparseTeacher) else None
    return Targets(
        labels=labels.masked_fill(absent, 0),
        absent=absent,
        label_coefficients=weights.to(dtype).masked_fill(absent, 0.0),
        classes=sparse_classes(sparse, kl != 0, vocab, dtype, numbers) if sparse is not None else None,
        dense=teacher if not isinstance(teacher, SparseTeacher) else None,
        divergence=targets.divergence,
        kl_coefficients=kl.to(dtype),
        known=kl != 0,
        temperature=targets.temperature,
    )


def _check_labels(labels: Tensor, absent: Tensor, vocab: int, numbers: Tensor) -> None:
    outside = ~absent & ((labels < 0) | (labels >= vocab))
    if bool(outside.any()):
        raise DataError(
            f"labels must be -100 or in 0..{vocab - 1}, in row(s) {name_rows(outside.any(1), numbers)}: "
            f"{int(labels[outside][0])}"
        )


def weighted_total(values: Values, targets: Targets) -> Tensor:
    """The sum of coefficient times value."""
    return (values.kl * targets.kl_coefficients).sum() + (values.labels * targets.label_coefficients).sum()


def check_values(values: Values, targets: Targets, rows: Tensor, nan: OnNan) -> int:
    """Raises for rows that are not finite, or counts them.

    Args:
        values: values of M rows.
        targets: targets of the same rows.
        rows: [M] their numbers, for the message.
        nan: "raise" or "skip_row".

    Returns:
        rows of which a part was left out.

    Raises:
        DataError: a dense teacher gave NaN or +inf.
        FloatingPointError: the student did, under `nan="raise"`.
    """
    if bool(values.bad_teacher.any()):
        raise DataError(f"teacher logits are NaN or +inf in row(s): {name_rows(values.bad_teacher, rows)}")
    bad = values.bad_kl & (targets.kl_coefficients != 0)
    bad = bad | (values.bad_labels & (targets.label_coefficients != 0)).any(1)
    return handle_bad_rows(bad, rows, nan, "logits")


class _RowLoss(torch.autograd.Function):
    """The weighted total of rows of logits; one buffer of their size, its gradient formed in the forward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, targets: Targets) -> tuple[Tensor, Values]:
        x = logits.detach()[rows].to(computing_dtype(logits.dtype))
        values = rows_(x, targets)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(x, rows)
            ctx.like = (logits.shape, logits.dtype)
        return weighted_total(values, targets), values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None]:
        x, rows = ctx.saved_tensors
        shape, dtype = ctx.like
        x = (x * grad).to(dtype)
        if len(rows) == shape[0]:
            return x, None, None
        return x.new_zeros(shape).index_copy_(0, rows, x), None, None


def row_loss(
    logits: Tensor, targets: RowTargets, mask: Tensor | None, nan: OnNan
) -> tuple[Tensor, int, Tensor]:
    """The weighted total over the rows in mask.

    Args:
        logits: [N,V].
        targets: targets of N rows.
        mask: [N] bool, or None for all.
        nan: "raise" or "skip_row".

    Returns:
        the total on the graph, rows skipped, and the rows' numbers [M].
    """
    check_rows(logits, mask=mask)
    if targets.rows != len(logits):
        raise ValueError(f"targets must have as many rows as logits ({len(logits)}): {targets.rows}")
    rows = torch.arange(len(logits), device=logits.device)
    if mask is not None:
        rows = rows[mask]
        targets = _take(targets, rows)
    prepared = prepare(targets, logits.shape[1], computing_dtype(logits.dtype), rows)
    total, values = _RowLoss.apply(logits, rows, prepared)  # type: ignore[no-untyped-call]
    return total, check_values(values, prepared, rows, nan), rows


def _take(targets: RowTargets, rows: Tensor) -> RowTargets:
    def of(field: Tensor | None) -> Tensor | None:
        return field[rows] if field is not None else None

    return RowTargets(
        labels=of(targets.labels),
        label_coefficients=of(targets.label_coefficients),
        teacher=targets.teacher.take(rows) if targets.teacher is not None else None,
        divergence=targets.divergence,
        kl_coefficients=of(targets.kl_coefficients),
        temperature=targets.temperature,
    )


def divergence_term(
    logits: Tensor,
    teacher: Teacher,
    divergence: Divergence,
    *,
    mask: Tensor | None,
    temperature: float,
    nan: OnNan,
) -> Term:
    """The sum of a divergence over the rows in mask; see `forward_kl`."""
    targets = RowTargets(teacher=teacher, divergence=divergence, temperature=temperature)
    total, skipped, rows = row_loss(logits, targets, mask, nan)
    return Term(total, len(rows), skipped)
