"""Cross-entropy on supervised rows, with span weights."""

from __future__ import annotations

import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.errors import DataError
from kdfast.losses.rows.autograd import RowTargets, row_loss
from kdfast.losses.rows.numerics import OnNan, check_rows, name_rows
from kdfast.losses.term import Term


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, *, nan: OnNan = "raise"
) -> Term:
    """Sum of `weights * -log softmax(logits)[labels]` over the rows that have a label.

    Logits and labels are already aligned: label t is what logit t must predict. Nothing is shifted here.

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
    counted = labels != IGNORE_INDEX
    if weights is None:
        weights = torch.ones(len(labels), device=labels.device)
    refused = ~weights.isfinite() | (weights < 0)
    if bool(refused.any()):
        everything = torch.arange(len(labels), device=labels.device)
        raise DataError(f"weights must be finite and >= 0, in row(s): {name_rows(refused, everything)}")
    targets = RowTargets(labels=labels[:, None], label_coefficients=weights[:, None])
    total, skipped, _ = row_loss(logits, targets, counted, nan)
    return Term(total, float(weights[counted].double().sum()), skipped)
