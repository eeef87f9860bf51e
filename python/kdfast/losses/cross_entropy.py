"""Cross-entropy on supervised rows, with span weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdfast.errors import DataError
from kdfast.losses.numerics import (
    OnNan,
    check_rows,
    computing_copy,
    handle_bad_rows,
    name_rows,
    scatter_rows,
    softmax_,
)
from kdfast.losses.term import IGNORE_INDEX, Term


class _RowCrossEntropy(torch.autograd.Function):
    """-log softmax(logits)[label] of the chosen rows; the forward forms the gradient, in one buffer."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = computing_copy(logits, rows)
        target = x.gather(1, labels[:, None])[:, 0]
        _, lse = softmax_(x)
        value = lse - target
        bad = ~value.isfinite()
        value = value.masked_fill(bad, 0.0)
        if ctx.needs_input_grad[0]:
            x.scatter_add_(1, labels[:, None], torch.full_like(value, -1.0)[:, None])
            x[bad] = 0.0
            ctx.save_for_backward(x, rows)
            ctx.like = (logits.shape, logits.dtype)
        ctx.mark_non_differentiable(bad)
        return value, bad

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None]:
        x, rows = ctx.saved_tensors
        return scatter_rows(x * grad[:, None], rows, *ctx.like), None, None


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, *, nan: OnNan = "raise"
) -> Term:
    """Sum of `weights * -log softmax(logits)[labels]` over the rows that have a label.

    Logits and labels are already aligned (DESIGN 3): nothing is shifted here.

    Args:
        logits: [N,V] at supervised positions, any floating dtype; the maths is fp32 (fp64 for fp64).
        labels: [N] int64; -100 drops the row.
        weights: [N], finite and >= 0; None means 1 each.
        nan: what a row whose value is not finite does: "raise", or "skip_row" (value 0, no gradient, still
            counted).

    Returns:
        `Term` with the sum of the weights of labelled rows as its count.

    Raises:
        DataError: a label outside the vocabulary, or a weight that is negative or not finite (a ValueError).
        FloatingPointError: a row's value is not finite, under `nan="raise"`.

    Example:
        >>> term = cross_entropy(torch.zeros(3, 4), torch.tensor([1, -100, 2]), torch.tensor([1.0, 1.0, 1.5]))
        >>> round(float(term.total), 4), term.count  # 2.5 log 4
        (3.4657, 2.5)
    """
    check_rows(logits, labels=labels, weights=weights)
    everything = torch.arange(len(labels), device=labels.device)
    outside = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= logits.shape[1]))
    if bool(outside.any()):
        first = int(labels[outside][0])
        raise DataError(
            f"labels must be -100 or in 0..{logits.shape[1] - 1}, "
            f"in row(s) {name_rows(outside, everything)}: {first}"
        )
    rows = everything[labels != IGNORE_INDEX]
    value, bad = _RowCrossEntropy.apply(logits, rows, labels[rows])  # type: ignore[no-untyped-call]
    skipped = handle_bad_rows(bad, rows, nan, "logits")
    if weights is None:
        return Term(value.sum(), len(rows), skipped)
    refused = ~weights.isfinite() | (weights < 0)
    if bool(refused.any()):
        raise DataError(f"weights must be finite and >= 0, in row(s): {name_rows(refused, everything)}")
    kept = weights[rows]
    return Term((value * kept.to(value.dtype)).sum(), float(kept.double().sum()), skipped)
