import math

import pytest
import torch
from loss_forms import student_logits, teacher_logits, top_k
from naive import dense_row, rows, sparse_row

from kdfast.losses import DenseTeacher, SparseTeacher, forward_kl, skew, skew_kl

INF = math.inf
ALPHAS = pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])


def test_by_hand():
    one, half = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    # m = 1/4 (1, 0) + 3/4 (1/2, 1/2) = (5/8, 3/8)
    assert float(skew_kl(half, DenseTeacher(one), alpha=0.25).total) == pytest.approx(math.log(8 / 5))
    # m = 1/4 (1/2, 1/2) + 3/4 (1, 0) = (7/8, 1/8)
    expected = 0.5 * math.log(4 / 7) + 0.5 * math.log(4)
    assert float(skew_kl(one, DenseTeacher(half), alpha=0.25).total) == pytest.approx(expected)


@ALPHAS
def test_dense_equals_plain_torch(alpha):
    student, logits = student_logits(6, 13, 0, torch.float64), teacher_logits(6, 13, 0)
    p, q = logits.softmax(1), student.softmax(1)
    expected = (p * (p / (alpha * p + (1 - alpha) * q)).log()).sum()
    mine = skew_kl(student, DenseTeacher(logits), alpha=alpha).total
    assert float(mine.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    gradients = [torch.autograd.grad(total, student)[0] for total in (mine, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.slow
@ALPHAS
@pytest.mark.parametrize("k", [1, 4, 13])
def test_sparse_value_and_gradcheck(alpha, k):
    student, logits = student_logits(5, 13, 1, torch.float64), teacher_logits(5, 13, 1)
    ids, logp, tail = top_k(logits, k).values()
    logp[2], tail[2] = -INF, 0.0
    logp[3], tail[3] = logp[3].log_softmax(0), -INF
    teacher = SparseTeacher(ids, logp, tail, 0.7)
    total = skew_kl(student, teacher, alpha=alpha, temperature=0.7).total
    expected = sum(rows(lambda *r: sparse_row("skew_kl", *r, 0.7, alpha=alpha), student, ids, logp, tail))
    assert float(total.detach()) == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: skew_kl(x, teacher, alpha=alpha, temperature=0.7).total, student
    )


@pytest.mark.slow
@ALPHAS
@pytest.mark.parametrize("teacher_vocab", [9, 16])
def test_dense_value_and_gradcheck_with_another_vocabulary(alpha, teacher_vocab):
    student, logits = student_logits(4, 13, 0, torch.float64), teacher_logits(4, teacher_vocab, 0)
    total = skew_kl(student, DenseTeacher(logits), alpha=alpha, temperature=2.0).total
    expected = sum(rows(lambda *r: dense_row("skew_kl", *r, 2.0, alpha=alpha), student, logits))
    assert float(total.detach()) == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: skew_kl(x, DenseTeacher(logits), alpha=alpha, temperature=2.0).total, student
    )


def test_alpha_0_is_forward_kl():
    student, logits = student_logits(6, 13, 2, torch.float64), teacher_logits(6, 13, 2)
    for teacher in (DenseTeacher(logits), SparseTeacher(*top_k(logits, 4).values())):
        got, expected = skew_kl(student, teacher, alpha=0.0).total, forward_kl(student, teacher).total
        assert float(got.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


@ALPHAS
def test_never_above_minus_log_alpha(alpha):
    student = torch.tensor([[5e3, 0.0, -INF]], requires_grad=True)
    total = skew_kl(student, DenseTeacher(torch.tensor([[0.0, 5e3, 5e3]])), alpha=alpha).total
    assert float(total.detach()) == pytest.approx(-math.log(alpha))
    total.backward()
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("alpha", [-0.1, 1.0, math.nan])
def test_alpha_is_a_share_below_1(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in 0..1, 1 excluded: "):
        skew(alpha)
