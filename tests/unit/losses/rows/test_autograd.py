import pytest
import torch
from loss_forms import student_logits, teacher_logits

from kdfast.errors import DataError
from kdfast.losses import FORWARD_KL, DenseTeacher, RowTargets, SparseTeacher
from kdfast.losses.rows.autograd import row_loss
from kdfast.losses.rows.numerics import softmax_

INF = torch.inf


def total(targets, n=3, vocab=5, mask=None, nan="raise"):
    return row_loss(torch.zeros(n, vocab), targets, mask, nan)


def test_divergence_and_labels_share_a_pass():
    x, logits = student_logits(3, 5, 0, torch.float64), teacher_logits(3, 5, 0)
    labels, weights = torch.tensor([[0, 0], [3, -100], [4, 1]]), torch.rand(3, 2).double()
    kl = torch.tensor([0.5, 0.0, -2.0]).double()
    targets = RowTargets(
        labels=labels,
        label_coefficients=weights,
        teacher=DenseTeacher(logits),
        divergence=FORWARD_KL,
        kl_coefficients=kl,
    )
    got, skipped, rows = row_loss(x, targets, None, "raise")
    logp, logq = logits.log_softmax(1), x.log_softmax(1)
    expected = (kl * (logp.exp() * (logp - logq)).sum(1)).sum()
    expected = expected - (weights * logq.gather(1, labels.clamp(min=0)) * (labels >= 0)).sum()
    assert (skipped, rows.tolist()) == (0, [0, 1, 2])
    assert float(got.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    gradients = [torch.autograd.grad(each, x)[0] for each in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_rows_are_named_by_their_own_numbers():
    x = torch.zeros(6, 4)
    x[4] = torch.nan
    mask = torch.tensor([False, True, False, True, True, False])
    targets = RowTargets(labels=torch.zeros(6, 1, dtype=torch.int64))
    with pytest.raises(FloatingPointError, match=r"in 1 row\(s\): 4"):
        row_loss(x, targets, mask, "raise")
    skipped, rows = row_loss(x, targets, mask, "skip_row")[1:]
    assert (skipped, rows.tolist()) == (1, [1, 3, 4])


def test_a_row_that_nothing_asks_about_may_be_broken():
    x = torch.zeros(2, 4)
    x[1] = torch.nan
    x.requires_grad_()
    targets = RowTargets(
        labels=torch.tensor([[1], [2]]),
        label_coefficients=torch.tensor([[1.0], [0.0]]),
        teacher=DenseTeacher(torch.zeros(2, 4)),
        divergence=FORWARD_KL,
        kl_coefficients=torch.tensor([1.0, 0.0]),
    )
    got = row_loss(x, targets, None, "raise")[0]
    got.backward()
    assert bool(x.grad.isfinite().all())
    assert torch.equal(x.grad[1], torch.zeros(4))


def test_targets_must_have_rows_and_agree_on_them():
    with pytest.raises(ValueError, match=r"targets must all have the same number of rows: \[\]"):
        _ = RowTargets().rows
    with pytest.raises(ValueError, match=r"targets must all have the same number of rows: \[2, 3\]"):
        _ = RowTargets(labels=torch.zeros(2, 1), kl_coefficients=torch.zeros(3)).rows


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (RowTargets(labels=torch.zeros(3, dtype=torch.int64)), r"labels must be \[N,J\]: \[3\]"),
        (
            RowTargets(labels=torch.zeros(3, 2, dtype=torch.int64), label_coefficients=torch.ones(3, 1)),
            r"label_coefficients must be \[3, 2\]: \[3, 1\]",
        ),
        (
            RowTargets(labels=torch.zeros(3, 1, dtype=torch.int64), kl_coefficients=torch.ones(3, 1)),
            r"kl_coefficients must be \[3\]: \[3, 1\]",
        ),
        (RowTargets(labels=torch.zeros(2, 1, dtype=torch.int64)), r"as many rows as logits \(3\): 2"),
        (
            RowTargets(labels=torch.tensor([[0], [5], [0]])),
            r"labels must be -100 or in 0..4, in row\(s\) 1: 5",
        ),
    ],
)
def test_what_does_not_fit_is_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        total(targets)


def test_a_label_outside_the_vocabulary_is_a_data_error_even_with_a_weight_of_0():
    targets = RowTargets(labels=torch.full((3, 1), 7), label_coefficients=torch.zeros(3, 1))
    with pytest.raises(DataError, match="labels must be -100 or in"):
        total(targets)


def test_teacher_rows_whose_coefficient_is_0_are_not_looked_at():
    nothing = SparseTeacher(
        torch.tensor([[1], [-5], [2]]),
        torch.tensor([[-0.5], [torch.nan], [-0.5]]),
        torch.tensor([-0.93, INF, -0.93]),
    )
    targets = RowTargets(
        teacher=nothing, divergence=FORWARD_KL, kl_coefficients=torch.tensor([1.0, 0.0, 1.0])
    )
    got = total(targets)[0]
    alone = total(RowTargets(teacher=nothing.take(torch.tensor([0, 2])), divergence=FORWARD_KL), n=2)[0]
    assert float(got) == pytest.approx(float(alone))


def test_softmax_in_place():
    x = torch.tensor([[1.0, 2.0, -INF], [-INF, -INF, -INF], [1e4, -1e4, 1e4]], dtype=torch.float64)
    expected, lse = x.softmax(1).nan_to_num(0.0), x.logsumexp(1)
    rowmax, log_sum = softmax_(x)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(rowmax + log_sum, lse)
    row = torch.tensor([[1.0, torch.nan]])
    assert bool(softmax_(row)[0].isnan())
