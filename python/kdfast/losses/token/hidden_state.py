"""Hidden-state distillation: the student's hidden states are pulled towards a live teacher's, position by position."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from kdfast.losses.rows.numerics import OnNan, computing_dtype, handle_bad_rows
from kdfast.losses.term import Term

HiddenStateForm = Literal["cosine", "mse"]
SMALLEST_NORM = 1e-8
"""Least norm, and least root mean square, that is divided by."""


def hidden_state_rows(
    student: Tensor, teacher: Tensor, mask: Tensor, form: HiddenStateForm = "cosine"
) -> tuple[Tensor, Tensor]:
    """The loss position by position; it does not wait for the device.

    Args:
        student: [...,D] hidden states.
        teacher: [...,D] hidden states; they get no gradient.
        mask: [...] bool, positions that count.
        form: see `hidden_state_loss`.

    Returns:
        [...] values, 0 where not counted or not finite, in fp32 (fp64 for fp64); and [...] bool, counted positions
        that are not finite.

    Raises:
        ValueError: an unknown form, or shapes that do not match.
    """
    if form not in get_args(HiddenStateForm):
        raise ValueError(f"form must be 'cosine' or 'mse': {form!r}")
    if student.shape != teacher.shape or student.shape[:-1] != mask.shape:
        raise ValueError(
            "student and teacher must both be [...,D] and mask [...]: "
            f"{list(student.shape)}, {list(teacher.shape)}, {list(mask.shape)}"
        )
    dtype = computing_dtype(student.dtype)
    s, t = student.to(dtype), teacher.detach().to(dtype)
    finite = s.isfinite().all(-1) & t.isfinite().all(-1)  # [...]
    kept = (mask & finite)[..., None]
    # a position that does not count gets harmless numbers first: 0 times the gradient of a NaN would be NaN
    s, t = torch.where(kept, s, 1.0), torch.where(kept, t, 1.0)
    if form == "cosine":
        norms = s.norm(dim=-1).clamp(min=SMALLEST_NORM) * t.norm(dim=-1).clamp(min=SMALLEST_NORM)
        values = 1 - (s * t).sum(-1) / norms
    else:
        size = t.square().mean(-1, keepdim=True).sqrt().clamp(min=SMALLEST_NORM)  # [...,1]
        values = ((s - t) / size).square().mean(-1)
    return values.masked_fill(~kept[..., 0], 0.0), mask & ~finite


def hidden_state_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    mask: Tensor | None = None,
    form: HiddenStateForm = "cosine",
    nan: OnNan = "raise",
) -> Term:
    """Sum over positions of the distance between hidden states of student and teacher (TinyBERT, arXiv 1909.10351).

    Layers differ in scale by orders of magnitude, and so do positions: the first token's norm can be 100 times the
    others'. So each position is measured in units of the teacher's own size there, and callers leave position 0 out.

    Args:
        student: [N,D] hidden states, any floating dtype; the maths is fp32 (fp64 for fp64). Where the widths differ,
            project the student's first.
        teacher: [N,D] of the same positions; they get no gradient.
        mask: [N] bool, positions to count; None means all.
        form: `cosine`: 1 - cos(s, t); `mse`: the mean over D of ((s - t) / rms(t))^2, rms(t) the root mean square of
            the teacher's D numbers at that position.
        nan: what a position that is not finite does: "raise", or "skip_row" (value 0, no gradient, still counted).

    Returns:
        `Term` with the number of positions as its count.

    Raises:
        FloatingPointError: a counted position is not finite, under `nan="raise"`.
        ValueError: shapes that do not match, or an unknown form.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 2.0]])
        >>> round(float(hidden_state_loss(student, teacher).total), 4)  # 1 - 1/sqrt 2
        0.2929
        >>> hidden_state_loss(student, teacher, form="mse").total  # rms 2: (1/4 + 1) / 2
        tensor(0.6250)
    """
    if mask is None:
        mask = torch.ones(student.shape[:-1], dtype=torch.bool, device=student.device)
    values, bad = hidden_state_rows(student, teacher, mask, form)
    numbers = torch.arange(bad.numel(), device=bad.device)
    skipped = handle_bad_rows(bad.flatten(), numbers, nan, "hidden states")
    return Term(values.sum(), int(mask.sum()), skipped)
