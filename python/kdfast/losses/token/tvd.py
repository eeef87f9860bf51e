"""Total variation distance: half the absolute difference of the two distributions, bounded by 1."""

from __future__ import annotations

from torch import Tensor

from kdfast.losses.rows.autograd import divergence_term
from kdfast.losses.rows.kernel import Classwise, Comparison, Divergence
from kdfast.losses.rows.numerics import OnNan
from kdfast.losses.rows.teacher import Teacher
from kdfast.losses.term import Term


def _kernel(x: Classwise) -> Comparison:
    # In fp32 and 150,000 classes each side's masses add up to 1 only within 5e-5, and that would be taken for a
    # distance: scale the student's to the teacher's sum first.
    masses = x.p.sum(1)
    difference = x.p.addcmul_(x.q, -(masses / x.q.sum(1))[:, None])  # [M,C] p - q
    value = difference.abs().sum(1).div_(masses) * 0.5
    # d|p - q|/d log q = -sign(p - q) q
    slope = difference.sign_().mul_(x.q).mul_(-0.5)
    return Comparison(value, slope, slope.sum(1))


TVD = Divergence("tvd", _kernel, smooth=False, temperature_power=1)


def tvd(
    logits: Tensor,
    teacher: Teacher,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    nan: OnNan = "raise",
) -> Term:
    """Sum over rows of the total variation distance 1/2 sum_v |p_v - q_v| (f-Distill, arXiv 2307.15190).

    p is the teacher, q the student. It is symmetric and at most 1, so that a row on which the two disagree wholly costs
    no more than 1 and has almost no gradient: it suits noisy teachers, and students that start near the teacher.
    It has a kink where the two are equal: its gradient does not fade there.

    With a sparse teacher both models are seen as k+1 classes; the value is never above that over all ids.

    Args:
        logits: [N,V], as in `forward_kl`.
        teacher: as in `forward_kl`.
        mask: as in `forward_kl`.
        temperature: divides both models' logits. Loss and gradient are multiplied by it once, not by its square: the
            gradient shrinks with 1/T only.
        nan: as in `forward_kl`.

    Returns:
        `Term` with the number of rows as its count.

    Raises:
        DataError: as in `forward_kl`.
        FloatingPointError: as in `forward_kl`.
        ValueError: as in `forward_kl`.

    Example:
        >>> import torch
        >>> from kdfast.losses import DenseTeacher
        >>> teacher = DenseTeacher(torch.tensor([[0.5, 0.25, 0.25]]).log())
        >>> round(float(tvd(torch.zeros(1, 3), teacher).total), 4)  # (1/6 + 1/12 + 1/12) / 2
        0.1667
    """
    return divergence_term(logits, teacher, TVD, mask=mask, temperature=temperature, nan=nan)
