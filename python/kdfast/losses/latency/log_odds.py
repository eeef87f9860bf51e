"""Log-odds of a set of ids against all others: of ending the answer, of opening a tool call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdfast.losses.rows.linear_kd import CHUNK_ROWS
from kdfast.losses.rows.numerics import check_rows, computing_dtype, gemm_dtype

LIMIT = 1e4
"""Logits are clamped to +-LIMIT first: infinities and fp32 giants then give finite log-odds, below 2.1e4."""


def check_ids(ids: Sequence[int], vocab_size: int | None = None) -> list[int]:
    """The distinct ids of a set, ascending.

    Args:
        ids: any order, repeats allowed.
        vocab_size: V, where it is known.

    Raises:
        ValueError: no ids, an id outside 0..V-1, or a set that leaves no other id.

    Example:
        >>> check_ids([7, 2, 7], 9)
        [2, 7]
    """
    distinct = sorted({int(number) for number in ids})
    if not distinct:
        raise ValueError("ids must not be empty")
    if distinct[0] < 0:
        raise ValueError(f"ids must not be negative: {distinct[0]}")
    if vocab_size is None:
        return distinct
    if distinct[-1] >= vocab_size:
        raise ValueError(f"ids must be in 0..{vocab_size - 1}: {distinct[-1]}")
    if len(distinct) == vocab_size:
        raise ValueError(f"ids must leave at least one other id of the vocabulary: all {vocab_size}")
    return distinct


def _row_log_odds_(x: Tensor, ids: Tensor) -> Tensor:
    """LSE(ids) - LSE(others) of each row of x [C,V]; destroys x."""
    x.clamp_(-LIMIT, LIMIT)
    x.sub_(x.amax(1, keepdim=True))  # the larger sum is then near 0: large logits lose no digits
    inside = x[:, ids].logsumexp(1)
    return inside - x.index_fill_(1, ids, -math.inf).logsumexp(1)


def _row_gradient_(x: Tensor, ids: Tensor, grad: Tensor) -> Tensor:
    """Gradient of grad * log-odds in each row of x [C,V], written over x."""
    clamped = x.abs() > LIMIT
    x.clamp_(-LIMIT, LIMIT)
    inside = torch.softmax(x[:, ids], 1) * grad[:, None]
    x.index_fill_(1, ids, -math.inf)
    torch.softmax(x, 1, out=x)
    x.mul_(-grad[:, None]).index_copy_(1, ids, inside)
    return x.masked_fill_(clamped, 0.0)


class _LogOdds(torch.autograd.Function):
    """The forward forms the gradient, in one buffer; a row with NaN gets none."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor) -> Tensor:
        dtype = computing_dtype(logits.dtype)
        value = _row_log_odds_(logits.detach().to(dtype, copy=True), ids)
        if ctx.needs_input_grad[0]:
            x = _row_gradient_(logits.detach().to(dtype, copy=True), ids, torch.ones_like(value))
            ctx.save_for_backward(x.masked_fill_(value.isnan()[:, None], 0.0))
            ctx.dtype = logits.dtype
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return (x * grad[:, None]).to(ctx.dtype), None


def log_odds(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-odds of a set of ids: log-sum-exp of their logits less that of all other logits.

    With d the log-odds, the set's probability Q has log Q = -softplus(-d) and log(1 - Q) = -softplus(d).

    Args:
        logits: [M,V], any floating dtype, any values; clamped to +-1e4 first (no gradient beyond).
        ids: the set: ids of the vocabulary, some but not all; order and repeats do not matter.

    Returns:
        [M] in fp32 (fp64 for fp64 logits); NaN, without a gradient, for a row that holds NaN.

    Raises:
        ValueError: `ids` are none, all, or outside the vocabulary; logits are not [M,V] floats.

    Example:
        >>> log_odds(torch.zeros(1, 4), [3])  # one against three
        tensor([-1.0986])
    """
    check_rows(logits)
    chosen = torch.tensor(check_ids(ids, logits.shape[1]), device=logits.device)
    return _LogOdds.apply(logits, chosen)  # type: ignore[no-any-return, no-untyped-call]


class _LinearLogOdds(torch.autograd.Function):
    """Projects chunk by chunk; the backward pass projects again. Neither waits for the device."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor, chunk_rows: int) -> Tensor:
        dtype = gemm_dtype(weight)
        value = torch.empty(len(hidden), dtype=computing_dtype(hidden.dtype), device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight.to(dtype).T
            for start in range(0, len(hidden), chunk_rows):
                chunk = slice(start, start + chunk_rows)
                value[chunk] = _row_log_odds_((hidden[chunk].to(dtype) @ head).to(value.dtype), ids)
        ctx.save_for_backward(hidden, weight, ids, value)
        ctx.dtype, ctx.chunk_rows = dtype, chunk_rows
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, ids, value = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        to_hidden = torch.zeros_like(hidden) if wants_hidden else None
        to_weight = torch.zeros_like(weight, dtype=value.dtype) if wants_weight else None
        lost = value.isnan()[:, None]  # [M,1]: 0 times the NaN of such a row would be NaN
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight.to(ctx.dtype)
            for start in range(0, len(hidden), ctx.chunk_rows):
                chunk = slice(start, start + ctx.chunk_rows)
                h = hidden[chunk].to(ctx.dtype)
                x = _row_gradient_((h @ head.T).to(value.dtype), ids, grad[chunk])  # [C,V]
                x = x.masked_fill_(lost[chunk], 0.0).to(ctx.dtype)
                if to_hidden is not None:
                    to_hidden[chunk] = (x @ head).to(hidden.dtype)
                if to_weight is not None:
                    _add_product_(to_weight, x.T, h.nan_to_num(0.0, 0.0, 0.0))
        return to_hidden, None if to_weight is None else to_weight.to(weight.dtype), None, None


def _add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a @ b, summed in the dtype of total."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)


def linear_log_odds(
    hidden: Tensor, weight: Tensor, ids: Sequence[int], *, chunk_rows: int = CHUNK_ROWS
) -> Tensor:
    """`log_odds(hidden @ weight.T, ids)` without keeping logits: the backward pass makes them again.

    Args:
        hidden: [M,D], any floating dtype; under autocast the products are made in autocast's dtype, the rest
            is fp32 (fp64 for fp64 hidden states).
        weight: [V,D].
        ids: as in `log_odds`.
        chunk_rows: rows projected at a time; only memory and speed depend on it.

    Returns:
        [M] in fp32 (fp64 for fp64 hidden states). Gradients reach only what requires one: a frozen weight or
        frozen hidden states skip their product.

    Raises:
        ValueError: as in `log_odds`; shapes or dtypes that do not match; `chunk_rows` below 1.

    Example:
        >>> linear_log_odds(torch.ones(1, 2), torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]), [0, 1])
        tensor([2.6931])
    """
    check_rows(hidden)
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[1]:
        raise ValueError(f"weight must be [V,{hidden.shape[1]}]: {list(weight.shape)}")
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1: {chunk_rows}")
    chosen = torch.tensor(check_ids(ids, weight.shape[0]), device=hidden.device)
    return log_odds_of_rows(hidden, weight, chosen, chunk_rows)


def log_odds_of_rows(hidden: Tensor, weight: Tensor, ids: Tensor, chunk_rows: int) -> Tensor:
    """`linear_log_odds` on ids that were checked before and are on the device: it does not wait for the device.

    Args:
        hidden: [M,D].
        weight: [V,D].
        ids: [.] int64, distinct ids of the vocabulary, not all of it.
        chunk_rows: rows projected at a time.
    """
    return _LinearLogOdds.apply(hidden, weight, ids, chunk_rows)  # type: ignore[no-any-return, no-untyped-call]
