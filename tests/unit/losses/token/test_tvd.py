"""Total variation distance: values worked out by hand, its bound, its kink. (What all losses share: test_losses.)"""

from __future__ import annotations

import math

import pytest
import torch
from loss_forms import teacher_logits, top_k

from kdfast.losses import DenseTeacher, SparseTeacher, tvd


def log(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_values_by_hand() -> None:
    teacher = DenseTeacher(log([0.5, 0.25, 0.25], [0.1, 0.2, 0.7]))
    student = log([0.2, 0.4, 0.4], [0.1, 0.2, 0.7])
    term = tvd(student, teacher)
    assert float(term.total) == pytest.approx((0.3 + 0.15 + 0.15) / 2)
    assert term.count == 2


def test_nothing_in_common_costs_1_and_it_is_symmetric() -> None:
    one, other = torch.tensor([[0.0, -math.inf]]), torch.tensor([[-math.inf, 0.0]])
    assert float(tvd(one, DenseTeacher(other)).total) == pytest.approx(1.0)
    a, b = teacher_logits(5, 9, 0), teacher_logits(5, 9, 1)
    assert float(tvd(a, DenseTeacher(b)).total) == pytest.approx(float(tvd(b, DenseTeacher(a)).total))


def test_gradient_by_hand() -> None:
    student = log([0.2, 0.4, 0.4]).requires_grad_()
    tvd(student, DenseTeacher(log([0.5, 0.25, 0.25]))).total.backward()
    # dD/dlog q = (-0.2, 0.4, 0.4) / 2, their sum 0.3; dD/dz = that - q * 0.3
    expected = torch.tensor([[-0.1 - 0.06, 0.2 - 0.12, 0.2 - 0.12]], dtype=torch.float64)
    torch.testing.assert_close(student.grad, expected)


def test_a_sparse_teacher_sees_no_more_than_all_ids_and_grows_with_them() -> None:
    teacher, student = teacher_logits(6, 12, 2), teacher_logits(6, 12, 3)
    values = [float(tvd(student, SparseTeacher(*top_k(teacher, k).values())).total) for k in range(1, 12)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(float(tvd(student, DenseTeacher(teacher)).total))


def test_gradcheck() -> None:
    student = teacher_logits(3, 5, 4).requires_grad_()
    teacher = SparseTeacher(*top_k(teacher_logits(3, 5, 5), 2).values())
    assert torch.autograd.gradcheck(lambda z: tvd(z, teacher).total, student)


def test_the_gradient_keeps_its_size_at_a_high_temperature() -> None:
    """Multiplied by T once: by its square they would grow with T."""
    teacher, sizes = teacher_logits(4, 9, 6), []
    for temperature in (10.0, 100.0):
        student = teacher_logits(4, 9, 7).requires_grad_()
        tvd(student, DenseTeacher(teacher), temperature=temperature).total.backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)
