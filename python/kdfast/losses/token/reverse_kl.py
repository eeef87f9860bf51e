"""KL(student || teacher): the student learns to give no mass where the teacher gives none."""

from __future__ import annotations

from torch import Tensor

from kdfast.losses.rows.autograd import divergence_term
from kdfast.losses.rows.kernel import Classwise, Comparison, Divergence
from kdfast.losses.rows.numerics import OnNan
from kdfast.losses.rows.teacher import Teacher
from kdfast.losses.term import Term


def _kernel(x: Classwise) -> Comparison:
    slope = x.logq.sub_(x.logp).mul_(x.q)
    slopes = slope.sum(1)
    return Comparison(slopes + (x.p.sum(1) - x.q.sum(1)), slope, slopes)


REVERSE_KL = Divergence("reverse_kl", _kernel)


def reverse_kl(
    logits: Tensor,
    teacher: Teacher,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    nan: OnNan = "raise",
) -> Term:
    """Sum over rows of KL(student || teacher) (MiniLLM, arXiv 2306.08543, without its sampling).

    The teacher's mass of "any other id" counts as at least exp(-60), so that a student which puts mass there is
    pulled back by a finite force.

    Args:
        logits: [N,V], as in `forward_kl`.
        teacher: as in `forward_kl`.
        mask: as in `forward_kl`.
        temperature: as in `forward_kl`.
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
        >>> round(float(reverse_kl(torch.zeros(1, 3), teacher).total), 4)  # 1/3 log(2/3) + 2/3 log(4/3)
        0.0566
    """
    return divergence_term(logits, teacher, REVERSE_KL, mask=mask, temperature=temperature, nan=nan)
