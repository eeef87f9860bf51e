import math

import pytest
import torch
from loss_forms import student_logits, teacher_logits, top_k
from naive import kl, log_softmax, rows

from kdfast.losses import DenseTeacher, SparseTeacher, reverse_kl

INF = math.inf


def sparse(ids, masses, tail, temperature=1.0):
    logp = torch.tensor([masses], dtype=torch.float64).log()
    return SparseTeacher(torch.tensor([ids]), logp, torch.tensor([tail], dtype=torch.float64), temperature)


def test_dense_by_hand():
    teacher = DenseTeacher(torch.tensor([[0.25, 0.25, 0.5]]).log())
    term = reverse_kl(torch.tensor([[0.5, 0.5, 0.0]]).log(), teacher)
    assert (float(term.total), term.count) == (pytest.approx(math.log(2)), 1)


def test_sparse_by_hand():
    term = reverse_kl(torch.zeros(1, 4).double(), sparse([2], [0.5], math.log(0.5)))
    assert float(term.total) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_dense_equals_torch_kl_div_the_other_way_round():
    student, logits = student_logits(6, 13, 0, torch.float64), teacher_logits(6, 13, 0)
    mine = reverse_kl(student, DenseTeacher(logits)).total
    theirs = torch.nn.functional.kl_div(
        logits.log_softmax(1), student.log_softmax(1), reduction="sum", log_target=True
    )
    assert float(mine.detach()) == pytest.approx(float(theirs.detach()), abs=1e-12)
    gradients = [torch.autograd.grad(total, student)[0] for total in (mine, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 4, 13])
def test_sparse_gradcheck(k):
    student, logits = student_logits(5, 13, 1, torch.float64), teacher_logits(5, 13, 1)
    ids, logp, tail = top_k(logits, k).values()
    logp[2], tail[2] = -INF, 0.0  # a row without entries
    logp[3], tail[3] = logp[3].log_softmax(0), -INF  # a teacher without a tail
    teacher = SparseTeacher(ids, logp, tail, 0.7)
    assert torch.autograd.gradcheck(lambda x: reverse_kl(x, teacher, temperature=0.7).total, student)


def test_full_when_k_is_the_vocabulary():
    student, logits = student_logits(5, 13, 1, torch.float64), teacher_logits(5, 13, 1)
    full = sum(rows(lambda z, t: kl(log_softmax(z), log_softmax(t)), student, logits))
    got = reverse_kl(student, SparseTeacher(*top_k(logits, 13).values())).total
    assert float(got.detach()) == pytest.approx(full, abs=1e-11)


@pytest.mark.parametrize("tail", [-INF, -1e4, -61.0, -60.0])
def test_the_teachers_tail_counts_as_at_least_exp_minus_60(tail):
    student = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    total = reverse_kl(student, sparse([0, 1], [0.5, 0.5], tail)).total
    assert float(total.detach()) == pytest.approx(0.5 * math.log(0.5) + 0.5 * (math.log(0.5) + 60.0))
    total.backward()
    assert bool((student.grad[0, 2:] > 1).all())  # a finite force out of the tail


def test_a_tail_above_the_floor_is_itself():
    total = reverse_kl(torch.zeros(1, 4).double(), sparse([0, 1], [0.5, 0.5], -59.0)).total
    assert float(total) == pytest.approx(math.log(0.5) + 29.5)


def test_dense_columns_that_only_one_side_lacks():
    student = torch.tensor([[1.0, 0.0, -INF]], dtype=torch.float64)
    logits = torch.tensor([[2.0, -INF, 0.0]], dtype=torch.float64)
    logp, logq = log_softmax([2.0, 0.0]), log_softmax([1.0, 0.0])
    expected = math.exp(logq[0]) * (logq[0] - logp[0]) + math.exp(logq[1]) * (logq[1] - (logp[0] - 60.0))
    assert float(reverse_kl(student, DenseTeacher(logits)).total) == pytest.approx(expected)


def test_near_one_hot_rows_are_finite():
    student = torch.tensor([[500.0, 0.0, 0.0]], requires_grad=True)
    total = reverse_kl(student, DenseTeacher(torch.tensor([[0.0, 500.0, 0.0]]))).total
    assert float(total.detach()) == pytest.approx(500.0)
    total.backward()
    assert bool(student.grad.isfinite().all())
