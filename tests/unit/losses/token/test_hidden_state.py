"""Hidden-state distillation against a loop in float64, its gradient, and positions that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdfast.losses import hidden_state_loss

FORMS = pytest.mark.parametrize("form", ["cosine", "mse"])


def states(n: int, d: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def naive_position(student: list[float], teacher: list[float], form: str) -> float:
    if form == "mse":
        rms = math.sqrt(sum(t * t for t in teacher) / len(teacher))
        return sum(((s - t) / rms) ** 2 for s, t in zip(student, teacher, strict=True)) / len(teacher)
    dot = sum(s * t for s, t in zip(student, teacher, strict=True))
    return 1 - dot / math.sqrt(sum(s * s for s in student) * sum(t * t for t in teacher))


@FORMS
@given(
    n=st.integers(1, 6), d=st.integers(1, 9), seed=st.integers(0, 999), scale=st.sampled_from([1e-3, 1, 1e3])
)
@settings(max_examples=30, deadline=None)
def test_equals_a_loop(form: str, n: int, d: int, seed: int, scale: float) -> None:
    student, teacher = states(n, d, seed), states(n, d, seed + 1, scale)
    mask = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.7
    expected = sum(
        naive_position(student[i].tolist(), teacher[i].tolist(), form) for i in range(n) if mask[i]
    )
    term = hidden_state_loss(student, teacher, mask=mask, form=form)
    assert float(term.total) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert term.count == int(mask.sum())
    low = hidden_state_loss(student.float(), teacher.float(), mask=mask, form=form)
    assert low.total.dtype == torch.float32
    assert float(low.total) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@FORMS
def test_gradcheck_and_no_gradient_for_the_teacher_or_outside_the_mask(form: str) -> None:
    student, teacher = states(4, 5, 0).requires_grad_(), states(4, 5, 1).requires_grad_()
    mask = torch.tensor([True, False, True, True])
    assert torch.autograd.gradcheck(
        lambda x: hidden_state_loss(x, teacher.detach(), mask=mask, form=form).total, student
    )
    hidden_state_loss(student, teacher, mask=mask, form=form).total.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert bool((student.grad[1] == 0).all())
    assert bool((student.grad[0] != 0).any())


@FORMS
def test_student_equal_to_teacher_costs_nothing(form: str) -> None:
    teacher = states(4, 5, 0)
    assert float(hidden_state_loss(teacher, teacher, form=form).total) == pytest.approx(0, abs=1e-12)


@FORMS
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_position_that_is_not_finite_is_named_or_skipped_with_no_gradient(form: str, side: str) -> None:
    given = {"student": states(4, 5, 0), "teacher": states(4, 5, 1)}
    given[side][2, 0] = math.nan
    student = given["student"].requires_grad_()
    with pytest.raises(FloatingPointError, match=r"hidden states are not finite in 1 row\(s\): 2"):
        hidden_state_loss(student, given["teacher"], form=form)
    term = hidden_state_loss(student, given["teacher"], form=form, nan="skip_row")
    assert (term.count, term.skipped) == (4, 1)
    term.total.backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
    assert bool((student.grad[2] == 0).all())


@FORMS
def test_zeros_stay_finite(form: str) -> None:
    student = torch.zeros(2, 5, requires_grad=True)
    hidden_state_loss(student, torch.zeros(2, 5), form=form).total.backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"student and teacher must both be \[\.\.\.,D\]"):
        hidden_state_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="form must be 'cosine' or 'mse': 'l1'"):
        hidden_state_loss(torch.zeros(2, 3), torch.zeros(2, 3), form="l1")
