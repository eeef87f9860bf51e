"""KL(teacher || student): the student learns to give mass wherever the teacher does."""

from __future__ import annotations

from torch import Tensor

from kdfast.losses.rows.autograd import divergence_term
from kdfast.losses.rows.kernel import Classwise, Comparison, Divergence
from kdfast.losses.rows.numerics import OnNan
from kdfast.losses.rows.teacher import Teacher
from kdfast.losses.term import Term


def _kernel(x: Classwise) -> Comparison:
    masses = x.p.sum(1)
    value = x.logp.sub_(x.logq).mul_(x.p).sum(1) + (x.q.sum(1) - masses)
    return Comparison(value, x.p.neg_(), -masses)


FORWARD_KL = Divergence("forward_kl", _kernel)


def forward_kl(
    logits: Tensor,
    teacher: Teacher,
    *,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    nan: OnNan = "raise",
) -> Term:
    """Sum over rows of KL(teacher || student) (Hinton, Vinyals and Dean 2015, arXiv 1503.02531).

    With a sparse teacher both models are seen as k+1 classes, "each of the k ids" and "any other id": a true KL,
    never above the full one, that grows as ids are added. The student is never renormalised over the k ids, and
    the value never clamped.

    Args:
        logits: [N,V] of the student at supervised positions, any floating dtype; the maths is fp32 (fp64 for
            fp64).
        teacher: the teacher of the same N rows.
        mask: [N] bool, rows to count; None means all.
        temperature: divides both models' logits; loss and gradient are multiplied by its square.
        nan: what a row of logits with NaN or +inf does: "raise", or "skip_row" (value 0, no gradient, still
            counted).

    Returns:
        `Term` with the number of rows as its count.

    Raises:
        DataError: NaN or +inf among the teacher's numbers, or a negative id (a ValueError).
        FloatingPointError: a row of logits with NaN or +inf, under `nan="raise"`.
        ValueError: shapes that do not match, or a temperature that is not finite and > 0 or not the one of the
            sparse teacher's log-probabilities.

    Example:
        A teacher that gives ids 0 and 1 one half and one quarter, a student that knows nothing of 4 ids:

        >>> import torch
        >>> from kdfast.losses import SparseTeacher
        >>> logp, tail_logp = torch.tensor([[0.5, 0.25]]).log(), torch.tensor([0.25]).log()
        >>> term = forward_kl(torch.zeros(1, 4), SparseTeacher(torch.tensor([[0, 1]]), logp, tail_logp))
        >>> round(float(term.total), 4)  # 1/2 log 2 + 1/4 log 1 + 1/4 log 1/2
        0.1733
    """
    return divergence_term(logits, teacher, FORWARD_KL, mask=mask, temperature=temperature, nan=nan)
