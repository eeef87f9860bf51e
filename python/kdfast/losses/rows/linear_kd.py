"""From hidden states and the output layer straight to the losses: the logits of all rows never exist.

Rows are taken in chunks through one reused buffer of logits. The maths overwrites the logits with their gradient, and
two matrix products turn that into gradients of the hidden states and of the weight. This happens in the forward pass,
because all coefficients are known before it. (Liger Kernel, arXiv 2410.10989, had the idea of a fused linear loss whose
forward pass forms the gradient.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kdfast.config.kd import KDConfig
from kdfast.losses.rows.autograd import RowTargets, check_values, prepare, weighted_total
from kdfast.losses.rows.maths import Targets, Values, rows_
from kdfast.losses.rows.numerics import OnNan, computing_dtype, gemm_dtype

CHUNK_ROWS: int = KDConfig.default("chunk_rows")
"""Rows of logits that exist at once."""


@dataclass(frozen=True)
class LinearKD:
    """What the rows cost.

    Attributes:
        total: scalar on the graph, the sum of coefficient times value.
        kl: [N] the divergence of each row before its coefficient, detached; 0 where no teacher is known.
        labels: [N,J] -log q of each label before its coefficient, detached; 0 where there is none.
        best: [N] int64, the student's likeliest ids; empty unless asked for.
        bad_kl: [N] bool, rows whose divergence was not finite and was left out (`nan="skip_row"`).
        bad_labels: [N,J] bool, labels whose value was not finite and was left out.
    """

    total: Tensor
    kl: Tensor
    labels: Tensor
    best: Tensor
    bad_kl: Tensor
    bad_labels: Tensor


@dataclass
class _Gradients:
    """The gradients that the forward pass forms."""

    hidden: Tensor | None = None
    weight: Tensor | None = None


@dataclass(frozen=True)
class _Plan:
    """How the rows are walked."""

    targets: Targets
    chunk_rows: int
    want_best: bool
    gemm_dtype: torch.dtype


class _LinearRows(torch.autograd.Function):
    """The weighted total of rows given as hidden states; gradients are formed in the forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, plan: _Plan) -> tuple[Tensor, Values, Tensor]:
        values, best, gradients = _walk(hidden, weight, plan, ctx.needs_input_grad)
        ctx.save_for_backward(hidden, weight)
        ctx.plan, ctx.gradients = plan, gradients
        return weighted_total(values, plan.targets), values, best

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, None]:
        # handed over, not copied; a second backward (retain_graph) makes them again
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            hidden, weight = ctx.saved_tensors
            gradients = _walk(hidden, weight, ctx.plan, ctx.needs_input_grad)[2]
        for part in (gradients.hidden, gradients.weight):
            if part is not None:
                part.mul_(grad)  # also where it is 1: to ask would be to wait for the device
        return gradients.hidden, gradients.weight, None


@torch.no_grad()
def _walk(
    hidden: Tensor, weight: Tensor, plan: _Plan, wanted: tuple[bool, ...]
) -> tuple[Values, Tensor, _Gradients]:
    """All chunks: values, likeliest ids and gradients."""
    with torch.autocast(hidden.device.type, enabled=False):
        return _walk_plain(hidden, weight, plan, wanted)


def _walk_plain(
    hidden: Tensor, weight: Tensor, plan: _Plan, wanted: tuple[bool, ...]
) -> tuple[Values, Tensor, _Gradients]:
    dtype, rows = computing_dtype(weight.dtype), len(hidden)
    gradients = _Gradients(
        torch.zeros_like(hidden) if wanted[0] else None,
        torch.empty(weight.shape, dtype=dtype, device=weight.device) if wanted[1] else None,
    )
    columns = weight.to(plan.gemm_dtype)
    buffer = hidden.new_empty((min(plan.chunk_rows, rows), len(weight)), dtype=dtype)
    dense = plan.targets.dense
    scratch = buffer.new_empty(len(buffer), dense.vocab) if dense is not None else None
    parts, best = [], []
    for start in range(0, rows, plan.chunk_rows):
        chunk = slice(start, min(start + plan.chunk_rows, rows))
        some = hidden[chunk].to(plan.gemm_dtype)
        x = buffer[: len(some)]
        if plan.gemm_dtype == dtype:
            torch.mm(some, columns.T, out=x)
        else:
            x.copy_(some @ columns.T)
        if plan.want_best:
            best.append(x.argmax(1))
        parts.append(rows_(x, replace(plan.targets.take(chunk), scratch=scratch)))
        _add_gradients(x.to(plan.gemm_dtype), some, columns, chunk, gradients)
    if not parts:
        parts.append(rows_(buffer, plan.targets))
        if gradients.weight is not None:
            gradients.weight.zero_()
    if gradients.weight is not None:
        gradients.weight = gradients.weight.to(weight.dtype)
    values = Values(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Values)))
    return values, torch.cat(best) if best else torch.empty(0, dtype=torch.int64), gradients


def _add_gradients(slope: Tensor, some: Tensor, columns: Tensor, chunk: slice, gradients: _Gradients) -> None:
    if gradients.hidden is not None:
        gradients.hidden[chunk] = slope @ columns
    if gradients.weight is None:
        return
    # a row that is left out has a slope of 0, and 0 times its NaN would be NaN
    some = some.nan_to_num(0.0, 0.0, 0.0)
    before = 1.0 if chunk.start else 0.0  # the first chunk's product needs no zeros to be added to
    if slope.dtype == gradients.weight.dtype:
        gradients.weight.addmm_(slope.T, some, beta=before)
    elif before:
        gradients.weight += slope.T @ some
    else:
        gradients.weight.copy_(slope.T @ some)


def linear_kd(
    hidden: Tensor,
    weight: Tensor,
    targets: RowTargets,
    *,
    chunk_rows: int = CHUNK_ROWS,
    want_best: bool = False,
    nan: OnNan = "raise",
) -> LinearKD:
    """The weighted total of divergences and cross-entropies of rows whose logits are `hidden @ weight.T`.

    Equal to the losses on those logits, with the memory of `chunk_rows` of them. Only rows that learn something
    should be handed over: `hidden[mask]`. Under autocast the matrix products run in its dtype; the maths is fp32
    (fp64 for fp64), and so is the sum that becomes the weight's gradient.

    Args:
        hidden: [N,D] last hidden states of the student at supervised positions.
        weight: [V,D] of its output layer; may be the embedding, or frozen. Under DDP and FSDP2 call this in the
            forward of the wrapped module; the head must belong to that module's own FSDP group (a head that is
            sharded by itself is not gathered here).
        targets: what the rows are to learn, with coefficients (weight / count) known before the forward.
        chunk_rows: rows of logits that exist at once; 256 to 512 is fast, 512 and more for bf16.
        want_best: also give each row's likeliest id.
        nan: what a row of logits with NaN or +inf does: "raise", or "skip_row" (value 0, no gradient).

    Returns:
        `LinearKD`.

    Raises:
        DataError: a label outside the vocabulary, NaN or +inf in the teacher (a ValueError).
        FloatingPointError: a row is not finite, under `nan="raise"`.
        ValueError: shapes that do not match, or a temperature that is not the teacher's.

    Example:
        >>> hidden, weight = torch.zeros(2, 3, requires_grad=True), torch.ones(4, 3)
        >>> result = linear_kd(hidden, weight, RowTargets(labels=torch.tensor([[1], [2]])))
        >>> round(float(result.total.detach()), 4)  # 2 log 4
        2.7726
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden must be [N,D] and weight [V,D]: {list(hidden.shape)}, {list(weight.shape)}")
    if targets.rows != len(hidden):
        raise ValueError(f"targets must have as many rows as hidden ({len(hidden)}): {targets.rows}")
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1: {chunk_rows}")
    rows = torch.arange(len(hidden), device=hidden.device)
    prepared = prepare(targets, len(weight), computing_dtype(weight.dtype), rows)
    result, values = linear_rows(hidden, weight, prepared, chunk_rows=chunk_rows, want_best=want_best)
    check_values(values, prepared, rows, nan)
    return result


def linear_rows(
    hidden: Tensor, weight: Tensor, targets: Targets, *, chunk_rows: int, want_best: bool
) -> tuple[LinearKD, Values]:
    """`linear_kd` on targets that were checked before: it does not wait for the device, and refuses no row.

    (A dense teacher still asks for infinities: it waits once for each block of rows.)

    Args:
        hidden: [N,D].
        weight: [V,D].
        targets: targets of the N rows, of the same device and computing dtype; labels that are not there have the
            coefficient 0.
        chunk_rows: rows of logits that exist at once.
        want_best: also give each row's likeliest id.

    Returns:
        what the rows cost, and the values before coefficients, where rows that are not finite are marked.
    """
    plan = _Plan(targets, chunk_rows, want_best, gemm_dtype(weight))
    if not torch.is_grad_enabled():  # or the forward would form gradients that nobody wants
        hidden, weight = hidden.detach(), weight.detach()
    total, values, best = _LinearRows.apply(hidden, weight, plan)  # type: ignore[no-untyped-call]
    wanted = targets.label_coefficients != 0
    result = LinearKD(
        total=total,
        kl=values.kl,
        labels=values.labels.masked_fill(targets.absent, 0.0),
        best=best,
        bad_kl=values.bad_kl & (targets.kl_coefficients != 0),
        bad_labels=values.bad_labels & wanted,
    )
    return result, values
