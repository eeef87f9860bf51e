"""The generalised Jensen-Shannon divergence: between forward KL (beta 0) and reverse KL (beta 1)."""

from __future__ import annotations

from torch import Tensor

from kdfast.losses.rows.autograd import divergence_term
from kdfast.losses.rows.kernel import SMALLEST, Classwise, Comparison, Divergence, Kernel
from kdfast.losses.rows.numerics import OnNan
from kdfast.losses.rows.teacher import Teacher
from kdfast.losses.term import Term
from kdfast.losses.token.forward_kl import FORWARD_KL
from kdfast.losses.token.reverse_kl import REVERSE_KL


def jsd(beta: float = 0.5) -> Divergence:
    """The divergence with this share of the teacher in the mixture; 0 is forward KL, 1 is reverse KL.

    Raises:
        ValueError: beta is not in 0..1.

    Example:
        >>> jsd(0.0).name, jsd(0.5).name
        ('forward_kl', 'generalized_jsd')
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in 0..1: {beta}")
    if beta == 0:
        return FORWARD_KL
    return REVERSE_KL if beta == 1 else Divergence("generalized_jsd", _kernel(beta))


def _kernel(beta: float) -> Kernel:
    def kernel(x: Classwise) -> Comparison:
        # where both underflow there is nothing to add, whatever the logarithm
        logm = (beta * x.p).add_(x.q, alpha=1 - beta).clamp_(min=SMALLEST).log_()
        slope = x.logq.sub_(logm).mul_(x.q).mul_(1 - beta)
        slopes = slope.sum(1)
        # the excess of both halves over the mixture cancels: nothing to add
        return Comparison(x.logp.sub_(logm).mul_(x.p).sum(1) * beta + slopes, slope, slopes)

    return kernel


def generalized_jsd(
    logits: Tensor,
    teacher: Teacher,
    *,
    beta: float = 0.5,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    nan: OnNan = "raise",
) -> Term:
    """Sum over rows of beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (GKD, arXiv 2306.13649).

    p is the teacher, q the student. beta 0 and 1, where the mixture would be one of the two and the value 0, give
    forward and reverse KL, their limits (up to the factor beta or 1 - beta).

    Args:
        logits: [N,V], as in `forward_kl`.
        teacher: as in `forward_kl`.
        beta: the teacher's share of the mixture, 0..1.
        mask: as in `forward_kl`.
        temperature: as in `forward_kl`.
        nan: as in `forward_kl`.

    Returns:
        `Term` with the number of rows as its count.

    Raises:
        DataError: as in `forward_kl`.
        FloatingPointError: as in `forward_kl`.
        ValueError: as in `forward_kl`, or beta is not in 0..1.

    Example:
        >>> import torch
        >>> from kdfast.losses import DenseTeacher
        >>> one, other = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
        >>> round(float(generalized_jsd(one, DenseTeacher(other)).total), 4)  # nothing in common: log 2
        0.6931
    """
    return divergence_term(logits, teacher, jsd(beta), mask=mask, temperature=temperature, nan=nan)
