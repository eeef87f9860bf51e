"""Skew KL: the teacher against a mixture of both, so that no student mass is too small."""

from __future__ import annotations

import torch
from torch import Tensor

from kdfast.losses.rows.autograd import divergence_term
from kdfast.losses.rows.kernel import SMALLEST, Classwise, Comparison, Divergence
from kdfast.losses.rows.numerics import OnNan
from kdfast.losses.rows.teacher import Teacher
from kdfast.losses.term import Term


def skew(alpha: float = 0.1) -> Divergence:
    """The divergence with this share of the teacher in the mixture; 0 is forward KL.

    Raises:
        ValueError: alpha is not in 0..1 (1 excluded: the value would be 0 everywhere).

    Example:
        >>> skew(0.1).name
        'skew_kl'
    """
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must be in 0..1, 1 excluded: {alpha}")

    def kernel(x: Classwise) -> Comparison:
        # where both underflow there is nothing to add, whatever the logarithm
        m = (alpha * x.p).add_(x.q, alpha=1 - alpha).clamp_(min=SMALLEST)
        slope = torch.mul(x.p, x.q, out=x.logq).div_(m).mul_(alpha - 1)
        value = x.logp.sub_(m.log_()).mul_(x.p).sum(1) + (1 - alpha) * (x.q.sum(1) - x.p.sum(1))
        return Comparison(value, slope, slope.sum(1))

    return Divergence("skew_kl", kernel)


def skew_kl(
    logits: Tensor,
    teacher: Teacher,
    *,
    alpha: float = 0.1,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    nan: OnNan = "raise",
) -> Term:
    """Sum over rows of KL(p || alpha p + (1 - alpha) q) (DistiLLM, arXiv 2402.03898).

    p is the teacher, q the student.

    Args:
        logits: [N,V], as in `forward_kl`.
        teacher: as in `forward_kl`.
        alpha: the teacher's share of the mixture, 0 <= alpha < 1.
        mask: as in `forward_kl`.
        temperature: as in `forward_kl`.
        nan: as in `forward_kl`.

    Returns:
        `Term` with the number of rows as its count.

    Raises:
        DataError: as in `forward_kl`.
        FloatingPointError: as in `forward_kl`.
        ValueError: as in `forward_kl`, or alpha is not in 0..1.

    Example:
        >>> import torch
        >>> from kdfast.losses import DenseTeacher
        >>> one, other = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
        >>> round(float(skew_kl(one, DenseTeacher(other), alpha=0.25).total), 4)  # bounded by log 4
        1.3863
    """
    return divergence_term(logits, teacher, skew(alpha), mask=mask, temperature=temperature, nan=nan)
