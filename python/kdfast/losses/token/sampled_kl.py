"""Random-sampling KD: cross-entropy against ids drawn from the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.errors import DataError
from kdfast.losses.rows.autograd import RowTargets, row_loss
from kdfast.losses.rows.numerics import OnNan, check_rows, computing_dtype, name_rows
from kdfast.losses.term import Term


def sample_weights(sample_counts: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Each drawn id's share of its row's draws [N,S]; 0 throughout where nothing was drawn.

    Example:
        >>> sample_weights(torch.tensor([[3, 1], [0, 0]]))
        tensor([[0.7500, 0.2500],
                [0.0000, 0.0000]])
    """
    counts = sample_counts.to(dtype)
    return counts / counts.sum(-1, keepdim=True).clamp(min=1.0)


def sampled_kl(
    logits: Tensor,
    sample_ids: Tensor,
    sample_counts: Tensor,
    *,
    mask: Tensor | None = None,
    nan: OnNan = "raise",
) -> Term:
    """Sum over rows of -sum_i w_i log q_i over ids drawn from the teacher, w_i = count_i / draws (arXiv 2503.16870).

    Its expectation over the draws is the cross-entropy of teacher and student: KL(teacher || student) plus the
    teacher's entropy, which has no gradient. So it is unbiased, where a truncated top-k is not, but noisy: it takes
    10^4 rows and more to beat the tail bucket of `forward_kl`. It is not 0 where student equals teacher.

    Args:
        logits: [N,V] of the student at supervised positions, any floating dtype.
        sample_ids: [N,S] drawn ids, at the temperature of 1; one of V or more is dropped.
        sample_counts: [N,S] how often each was drawn; 0 = padding.
        mask: [N] bool, rows to count; None means all.
        nan: as in `forward_kl`.

    Returns:
        `Term` with the number of rows as its count; a row without draws is counted and costs 0.

    Raises:
        DataError: a negative count, or a negative id (a ValueError).
        FloatingPointError: as in `forward_kl`.
        ValueError: shapes that do not match.

    Example:
        >>> drawn = torch.tensor([[0, 1]]), torch.tensor([[3, 1]])
        >>> round(float(sampled_kl(torch.tensor([[0.5, 0.5]]).log(), *drawn).total), 4)  # log 2
        0.6931
    """
    check_rows(logits, sample_ids=sample_ids, sample_counts=sample_counts, mask=mask)
    if sample_ids.shape != sample_counts.shape or sample_ids.dim() != 2:
        raise ValueError(
            f"sample_ids and sample_counts must both be [N,S]: {list(sample_ids.shape)}, {list(sample_counts.shape)}"
        )
    labels, weights = sample_labels(sample_ids, sample_counts, logits.shape[1], computing_dtype(logits.dtype))
    targets = RowTargets(labels=labels, label_coefficients=weights)
    total, skipped, rows = row_loss(logits, targets, mask, nan)
    return Term(total, len(rows), skipped)


def sample_labels(
    sample_ids: Tensor, sample_counts: Tensor, vocab: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Labels [N,S] int64 (-100 where nothing was drawn) and their weights [N,S] for the maths of rows.

    Raises:
        DataError: a negative count, or a negative id that was drawn.

    Example:
        >>> sample_labels(torch.tensor([[4, 0]]), torch.tensor([[2, 0]]), 5)
        (tensor([[   4, -100]]), tensor([[1., 0.]]))
    """
    drawn = sample_counts > 0
    broken = ((sample_counts < 0) | (drawn & (sample_ids < 0))).any(1)
    if bool(broken.any()):
        rows = torch.arange(len(sample_ids), device=sample_ids.device)
        raise DataError(f"sample_ids and sample_counts must be >= 0, in row(s): {name_rows(broken, rows)}")
    kept = drawn & (sample_ids < vocab)
    weights = sample_weights(sample_counts.masked_fill(~kept, 0), dtype)
    return sample_ids.long().masked_fill(~kept, IGNORE_INDEX), weights
