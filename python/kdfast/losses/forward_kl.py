"""KL(teacher || student) from the teacher's k most likely ids and the mass of all others.

The teacher is known as k log-probabilities and the log of the mass outside them (the tail). Both models are
seen as k+1 classes, the last one "any other id": a true KL, never above the full one, that grows as ids are
added. The student is never renormalised over the k ids, and the value never clamped.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from kdfast.errors import DataError
from kdfast.losses.numerics import (
    OnNan,
    check_rows,
    check_temperature,
    computing_copy,
    handle_bad_rows,
    name_rows,
    scatter_rows,
    softmax_,
)
from kdfast.losses.term import Term

FLOOR = 60.0
"""A class the student gives -inf and the teacher does not is taken as exp(-60) of its likeliest id."""

MASS_TOLERANCE = 5e-3
"""How far the stored masses of a row may be from 1 (fp16 storage) before a warning."""


def _usable(ids: Tensor, logp: Tensor, vocab: int) -> Tensor:
    """[N,K] bool: entries that are not -inf, inside the vocabulary, and the first of their id in the row."""
    usable = (logp > -math.inf) & (ids < vocab)
    # ids that are out of use sort first, as -1, so that they hide no later entry of the same id
    order = torch.where(usable, ids, -1).sort(dim=1, stable=True)
    repeated = torch.zeros_like(usable)
    repeated[:, 1:] = order.values[:, 1:] == order.values[:, :-1]
    return usable & ~torch.zeros_like(usable).scatter_(1, order.indices, repeated)


def _check_teacher(ids: Tensor, logp: Tensor, tail: Tensor, rows: Tensor) -> None:
    broken = ~(logp < math.inf).all(1) | ~(tail < math.inf)
    if bool(broken.any()):
        raise DataError(f"teacher log-probabilities are NaN or +inf in row(s): {name_rows(broken, rows)}")
    negative = ((ids < 0) & (logp > -math.inf)).any(1)
    if bool(negative.any()):
        raise DataError(f"topk_ids must be >= 0, in row(s): {name_rows(negative, rows)}")


def _teacher(ids: Tensor, logp: Tensor, tail: Tensor, vocab: int) -> tuple[Tensor, Tensor]:
    """The teacher's log-probabilities of k+1 classes [N,K+1], -inf where out of use; usable entries [N,K]."""
    usable = _usable(ids, logp, vocab)
    kept = logp.masked_fill(~usable, -math.inf)
    # where the k ids are the whole vocabulary there is no other id: no tail
    tail = tail.masked_fill(usable.sum(1) >= vocab, -math.inf)
    classes = torch.cat([kept, tail[:, None]], 1)
    empty = classes.amax(1) == -math.inf
    classes[empty, -1] = 0.0
    return torch.log_softmax(classes, 1), usable


def _warn_mass(ids: Tensor, logp: Tensor, tail: Tensor, rows: Tensor) -> None:
    first = _usable(ids, logp, int(ids.max()) + 1 if ids.numel() else 1)
    mass = logp.exp().masked_fill(~first, 0.0).sum(1) + tail.exp()
    off = ((mass - 1.0).abs() > MASS_TOLERANCE) & (mass > 0)
    if bool(off.any()):
        warnings.warn(
            "the teacher's masses do not add up to 1 and are renormalised, "
            f"in row(s): {name_rows(off, rows)}",
            RuntimeWarning,
            stacklevel=3,
        )


class _RowBucketKl(torch.autograd.Function):
    """KL over k+1 classes of the chosen rows; one [N,V] buffer, its gradient formed in the forward."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, rows: Tensor, ids: Tensor, usable: Tensor, logp: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        x = computing_copy(logits, rows).div_(temperature)
        top = x.gather(1, ids).masked_fill(~usable, -math.inf)
        # an entry out of use writes where its row's first usable one does, so that it hides no other column
        stand_in = ids.gather(1, usable.int().argmax(1, keepdim=True))
        hidden = torch.where(usable, ids, stand_in)
        x.scatter_(1, hidden, x.gather(1, hidden).masked_fill(usable.any(1, keepdim=True), -math.inf))
        rest_max, rest_lse = softmax_(x)
        z = torch.cat([top, rest_lse[:, None]], 1)
        lse = z.logsumexp(1, keepdim=True)
        bad = ~lse[:, 0].isfinite()
        logq = z - lse
        floor = torch.maximum(top.amax(1), rest_max)[:, None] - FLOOR - lse
        p = logp.exp()
        known = torch.where((logq == -math.inf) & (p > 0), floor, logq)
        value = torch.where(p > 0, p * (logp - known), 0.0).sum(1).masked_fill(bad, 0.0)
        if ctx.needs_input_grad[0]:
            # a floored class is a constant: its mass pulls on nothing, so every row's gradient still sums to
            # 0
            live = p.masked_fill(logq == -math.inf, 0.0)
            slope = (logq.exp() * live.sum(1, keepdim=True) - live).masked_fill(
                bad[:, None], 0.0
            ) * temperature
            x.mul_(slope[:, -1:])
            x.scatter_add_(1, ids, slope[:, :-1].masked_fill(~usable, 0.0))
            x[bad] = 0.0
            ctx.save_for_backward(x, rows)
            ctx.like = (logits.shape, logits.dtype)
        ctx.mark_non_differentiable(bad)
        return value * temperature**2, bad

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None, None, None, None]:
        x, rows = ctx.saved_tensors
        return scatter_rows(x * grad[:, None], rows, *ctx.like), None, None, None, None, None


def forward_kl(  # noqa: PLR0913 - the teacher's three tensors belong together and every option has its name
    logits: Tensor,
    topk_ids: Tensor,
    topk_logp: Tensor,
    tail_logp: Tensor,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    logprob_temperature: float = 1.0,
    nan: OnNan = "raise",
) -> Term:
    """Sum over rows of KL(teacher || student) on the k+1 classes "each of the k ids" and "any other id".

    Args:
        logits: [N,V] of the student at supervised positions, any floating dtype; the maths is fp32 (fp64 for
            fp64).
        topk_ids: [N,K] integers. An id of V or more is dropped and the teacher renormalised; of a repeated
            id the first entry counts.
        topk_logp: [N,K] the teacher's log-probabilities; an entry of -inf is ignored. A row without any entry
            has KL 0.
        tail_logp: [N] log of the teacher's mass outside the k ids, as stored (1 - sum of fp16 masses is
            wrong).
        mask: [N] bool, rows to count; None means all.
        temperature: divides the student's logits; loss and gradient are multiplied by its square.
        logprob_temperature: the one the stored log-probabilities were computed at.
        nan: what a row of logits with NaN or +inf does: "raise", or "skip_row" (value 0, no gradient, still
            counted).

    Returns:
        `Term` with the number of rows as its count.

    Raises:
        DataError: NaN or +inf among the teacher's log-probabilities, or a negative id (a ValueError).
        FloatingPointError: a row of logits with NaN or +inf, under `nan="raise"`.
        ValueError: shapes that do not match, or a temperature that is not finite and > 0 or not the stored
            one.

    Example:
        A teacher that gives ids 0 and 1 one half and one quarter, a student that knows nothing of 4 ids:

        >>> logp, tail_logp = torch.tensor([[0.5, 0.25]]).log(), torch.tensor([0.25]).log()
        >>> term = forward_kl(torch.zeros(1, 4), torch.tensor([[0, 1]]), logp, tail_logp)
        >>> round(float(term.total), 4)  # 1/2 log 2 + 1/4 log 1 + 1/4 log 1/2
        0.1733
    """
    check_temperature(temperature)
    if temperature != logprob_temperature:
        raise ValueError(
            f"temperature must be the one of the stored log-probabilities ({logprob_temperature}), because "
            f"top-k log-probabilities cannot be brought to another: {temperature}"
        )
    check_rows(logits, topk_ids=topk_ids, topk_logp=topk_logp, tail_logp=tail_logp, mask=mask)
    if topk_ids.shape != topk_logp.shape or topk_ids.dim() != 2 or not topk_ids.shape[1]:
        raise ValueError(
            "topk_ids and topk_logp must both be [N,K] with K >= 1: "
            f"{list(topk_ids.shape)}, {list(topk_logp.shape)}"
        )
    rows = torch.arange(len(logits), device=logits.device)
    rows = rows if mask is None else rows[mask]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    ids, logp, tail = topk_ids[rows].long(), topk_logp[rows].to(dtype), tail_logp[rows].to(dtype)
    _check_teacher(ids, logp, tail, rows)
    _warn_mass(ids, logp, tail, rows)
    classes, usable = _teacher(ids, logp, tail, logits.shape[1])
    safe = ids.masked_fill(~usable, 0)
    value, bad = _RowBucketKl.apply(  # type: ignore[no-untyped-call]
        logits, rows, safe, usable, classes, temperature
    )
    skipped = handle_bad_rows(bad, rows, nan, "logits")
    return Term(value.sum(), len(rows), skipped)
