import math

import pytest
import torch
from loss_forms import student_logits, teacher_logits, top_k
from naive import dense_row, rows, sparse_row
from torch.nn.functional import kl_div

from kdfast.losses import DenseTeacher, SparseTeacher, forward_kl, generalized_jsd, jsd, reverse_kl

INF = math.inf
BETAS = pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])


def case(n=6, vocab=13, dtype=torch.float64):
    return student_logits(n, vocab, 0, dtype), teacher_logits(n, vocab, 0)


def trl(student, teacher, beta):
    """TRL's `generalized_jsd_loss` at temperature 1 as published: `beta` weighs the teacher, there as here."""
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    if beta == 0:
        return kl_div(student, teacher, reduction="sum", log_target=True)
    if beta == 1:
        return kl_div(teacher, student, reduction="sum", log_target=True)
    weight = torch.tensor(beta, dtype=student.dtype)
    middle = torch.logsumexp(
        torch.stack([student + torch.log1p(-weight), teacher + torch.log(weight)]), dim=0
    )
    of_teacher = kl_div(middle, teacher, reduction="sum", log_target=True)
    return weight * of_teacher + (1 - weight) * kl_div(middle, student, reduction="sum", log_target=True)


def liger(student, teacher, beta):
    """Liger's JSD as published: P the teacher ("target"), Q the student ("input"), M = beta P + (1 - beta) Q."""
    x, y = student.log_softmax(-1), teacher.log_softmax(-1)
    if beta == 0:
        return (y.exp() * (y - x)).sum()
    if beta == 1:
        return (x.exp() * (x - y)).sum()
    middle = (beta * y.exp() + (1 - beta) * x.exp()).log()
    return beta * (y.exp() * (y - middle)).sum() + (1 - beta) * (x.exp() * (x - middle)).sum()


@pytest.mark.parametrize("peer", [trl, liger])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_published_definitions(peer, beta, dtype):
    student, logits = case(dtype=dtype)
    mine = generalized_jsd(student, DenseTeacher(logits.to(dtype)), beta=beta).total
    theirs = peer(student, logits.to(dtype), beta)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert float(mine.detach()) == pytest.approx(float(theirs.detach()), abs=tolerance)
    gradients = [torch.autograd.grad(total, student)[0] for total in (mine, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=tolerance)


def test_by_hand():
    one, half = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    # m = (3/4, 1/4)
    expected = 0.5 * math.log(4 / 3) + 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert float(generalized_jsd(half, DenseTeacher(one)).total) == pytest.approx(expected)
    assert float(generalized_jsd(one, DenseTeacher(half)).total) == pytest.approx(
        expected
    )  # symmetric at 1/2


def test_the_ends_are_forward_and_reverse_kl():
    student, logits = case()
    for teacher in (DenseTeacher(logits), SparseTeacher(*top_k(logits, 4).values())):
        for beta, end in ((0.0, forward_kl), (1.0, reverse_kl)):
            got = generalized_jsd(student, teacher, beta=beta).total
            assert float(got.detach()) == float(end(student, teacher).total.detach())


@pytest.mark.parametrize(("beta", "limit"), [(1e-6, forward_kl), (1 - 1e-6, reverse_kl)])
def test_the_ends_are_limits_up_to_the_weight(beta, limit):
    student, logits = case()
    value = float(generalized_jsd(student, DenseTeacher(logits), beta=beta).total.detach())
    expected = float(limit(student, DenseTeacher(logits)).total.detach())
    assert value / min(beta, 1 - beta) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@BETAS
@pytest.mark.parametrize("k", [1, 4, 13])
def test_sparse_value_and_gradcheck(beta, k):
    student, logits = case(n=5)
    ids, logp, tail = top_k(logits, k).values()
    logp[2], tail[2] = -INF, 0.0
    logp[3], tail[3] = logp[3].log_softmax(0), -INF
    teacher = SparseTeacher(ids, logp, tail, 0.7)
    total = generalized_jsd(student, teacher, beta=beta, temperature=0.7).total
    expected = sum(
        rows(lambda *r: sparse_row("generalized_jsd", *r, 0.7, beta=beta), student, ids, logp, tail)
    )
    assert float(total.detach()) == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: generalized_jsd(x, teacher, beta=beta, temperature=0.7).total, student
    )


@pytest.mark.slow
@BETAS
@pytest.mark.parametrize("teacher_vocab", [9, 16])
def test_dense_value_and_gradcheck_with_another_vocabulary(beta, teacher_vocab):
    student, logits = student_logits(4, 13, 0, torch.float64), teacher_logits(4, teacher_vocab, 0)
    total = generalized_jsd(student, DenseTeacher(logits), beta=beta, temperature=2.0).total
    expected = sum(rows(lambda *r: dense_row("generalized_jsd", *r, 2.0, beta=beta), student, logits))
    assert float(total.detach()) == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: generalized_jsd(x, DenseTeacher(logits), beta=beta, temperature=2.0).total, student
    )


@BETAS
def test_bounded_where_both_have_nothing_in_common(beta):
    student = torch.tensor([[5e3, 0.0, -INF]], requires_grad=True)
    total = generalized_jsd(student, DenseTeacher(torch.tensor([[0.0, 5e3, 5e3]])), beta=beta).total
    # the entropy of (beta, 1 - beta)
    assert float(total.detach()) == pytest.approx(-beta * math.log(beta) - (1 - beta) * math.log(1 - beta))
    total.backward()
    assert float(student.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_beta_is_a_share(beta):
    with pytest.raises(ValueError, match=r"beta must be in 0..1: "):
        jsd(beta)
