import math
import warnings

import pytest
import torch
from loss_forms import student_logits, teacher_logits, top_k
from naive import dense_row, kl, log_softmax, rows, sparse_row

from kdfast.errors import DataError
from kdfast.losses import DenseTeacher, SparseTeacher, forward_kl

INF = math.inf


def case(n=6, vocab=13, k=4, seed=0):
    """A random student and a random teacher's exact top-k with its exact tail, in float64."""
    logits = teacher_logits(n, vocab, seed)
    return student_logits(n, vocab, seed, torch.float64), *top_k(logits, k).values(), logits


def row(logits, ids, logp, tail, **options):
    """One row's value in float64."""
    teacher = SparseTeacher(torch.tensor([ids]), torch.tensor([logp]).double(), torch.tensor([tail]).double())
    term = forward_kl(torch.tensor([logits], dtype=torch.float64), teacher, **options)
    assert term.count == 1
    return float(term.total)


def sparse_oracle(*columns, temperature=1.0):
    return sum(rows(lambda *r: sparse_row("forward_kl", *r, temperature), *columns))


def test_sparse_by_hand():
    assert row([0.0] * 4, [0, 1], [math.log(0.5), math.log(0.25)], math.log(0.25)) == pytest.approx(
        0.5 * math.log(2) + 0.25 * math.log(1) + 0.25 * math.log(0.5)
    )


def test_dense_by_hand():
    teacher = DenseTeacher(torch.tensor([[0.5, 0.5, 0.0]]).log())
    term = forward_kl(torch.tensor([[0.25, 0.25, 0.5]]).log(), teacher)
    assert (float(term.total), term.count) == (pytest.approx(math.log(2)), 1)


def test_dense_equals_torch_kl_div():
    student, *_, logits = case()
    expected = torch.nn.functional.kl_div(
        student.log_softmax(1), logits.log_softmax(1), reduction="sum", log_target=True
    )
    assert float(forward_kl(student, DenseTeacher(logits)).total.detach()) == pytest.approx(
        float(expected.detach()), abs=1e-12
    )
    gradients = [
        torch.autograd.grad(total, student)[0]
        for total in (forward_kl(student, DenseTeacher(logits)).total, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_gradient_by_gradcheck_with_every_kind_of_entry():
    student, ids, logp, tail, _ = case()
    ids[1, 2] = 99  # outside the vocabulary
    ids[2, 3] = ids[2, 0]  # repeated
    logp[3, 1] = -INF  # ignored
    logp[4], tail[4] = -INF, 0.0  # empty
    tail[5] = -INF  # a teacher without a tail

    def total(x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return forward_kl(x, SparseTeacher(ids, logp, tail, 1.7), temperature=1.7).total

    assert torch.autograd.gradcheck(total, student)
    expected = sparse_oracle(student, ids, logp, tail, temperature=1.7)
    assert float(total(student).detach()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("teacher_vocab", [9, 13, 16], ids=["smaller", "equal", "larger"])
def test_dense_gradcheck_with_another_vocabulary(teacher_vocab):
    student, logits = student_logits(4, 13, 0, torch.float64), teacher_logits(4, teacher_vocab, 0)
    teacher = DenseTeacher(logits)
    assert torch.autograd.gradcheck(lambda x: forward_kl(x, teacher, temperature=1.7).total, student)
    expected = sum(rows(lambda *r: dense_row("forward_kl", *r, 1.7), student, logits))
    assert float(forward_kl(student, teacher, temperature=1.7).total.detach()) == pytest.approx(
        expected, abs=1e-11
    )


def test_surplus_ids_of_the_teacher_are_dropped_and_it_is_renormalised():
    # 152064 against 151936 in small: the student's own padding never counts
    student, logits = student_logits(3, 8, 1, torch.float64), teacher_logits(3, 10, 1)
    got = forward_kl(student, DenseTeacher(logits)).total.detach()
    assert float(got) == float(forward_kl(student, DenseTeacher(logits[:, :8])).total.detach())


def test_missing_ids_of_the_teacher_have_no_mass():
    student, logits = student_logits(3, 10, 1, torch.float64), teacher_logits(3, 8, 1)
    got = forward_kl(student, DenseTeacher(logits)).total.detach()
    logq, logp = student.detach().log_softmax(1)[:, :8], logits.log_softmax(1)
    assert float(got) == pytest.approx(float((logp.exp() * (logp - logq)).sum()), abs=1e-12)


def test_equals_the_full_kl_when_k_is_the_vocabulary():
    student, ids, logp, _, logits = case(k=13)
    full = sum(rows(lambda z, t: kl(log_softmax(t), log_softmax(z)), student, logits))
    for tail in (-INF, -30.0):  # no tail: whatever is stored for it is dropped
        term = forward_kl(student, SparseTeacher(ids, logp, torch.full((6,), tail)))
        assert float(term.total.detach()) == pytest.approx(full, abs=1e-11)
    assert float(forward_kl(student, DenseTeacher(logits)).total.detach()) == pytest.approx(full, abs=1e-11)


def test_a_single_id():
    student, ids, logp, tail, _ = case(k=1)
    value = float(forward_kl(student, SparseTeacher(ids, logp, tail)).total.detach())
    assert value == pytest.approx(sparse_oracle(student, ids, logp, tail), abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: forward_kl(x, SparseTeacher(ids, logp, tail)).total, student)


def test_ids_outside_the_vocabulary_are_dropped_and_the_teacher_renormalised():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = row([0.0, 1.0, 2.0], [1, 7], [math.log(0.5), math.log(0.25)], math.log(0.25))
    assert got == pytest.approx(row([0.0, 1.0, 2.0], [1], [math.log(2 / 3)], math.log(1 / 3)))


def test_repeated_id_keeps_its_first_usable_entry():
    first = row([0.0, 1.0, 2.0], [1, 2], [math.log(0.5), math.log(0.3)], math.log(0.2))
    assert row([0.0, 1.0, 2.0], [1, 2, 1], [math.log(0.5), math.log(0.3), -9.0], math.log(0.2)) == first
    assert row(
        [0.0, 1.0, 2.0], [1, 2, 1], [-INF, math.log(0.3), math.log(0.5)], math.log(0.2)
    ) == pytest.approx(first)


def test_padding_entries_at_id_0_hide_nothing():
    padded = row([3.0, 1.0, 2.0], [1, 0, 0], [math.log(0.9), -INF, -INF], math.log(0.1))
    assert padded == pytest.approx(row([3.0, 1.0, 2.0], [1], [math.log(0.9)], math.log(0.1)))


def test_a_peaked_teacher_without_a_tail():
    assert row([3.0, 1.0, 2.0], [1], [0.0], -INF) == pytest.approx(-log_softmax([3.0, 1.0, 2.0])[1])


def test_never_clamped_and_never_renormalised_over_the_top_k():
    # right shape inside the top-k, wrong mass outside: a student renormalised over the top-k would see 0
    inside = row([5.0, 5.0, 9.0], [0, 1], [math.log(0.45)] * 2, math.log(0.1))
    share = math.exp(log_softmax([5.0, 5.0, 9.0])[0])
    assert inside == pytest.approx(0.9 * math.log(0.45 / share) + 0.1 * math.log(0.1 / (1 - 2 * share)))


def test_a_sparse_teacher_has_one_temperature():
    student, ids, logp, tail, _ = case()
    with pytest.raises(ValueError, match=r"stored log-probabilities \(1.0\).*: 2.0"):
        forward_kl(student, SparseTeacher(ids, logp, tail), temperature=2.0)
    with pytest.raises(ValueError, match=r"stored log-probabilities \(2.0\).*: 1.0"):
        forward_kl(student, SparseTeacher(ids, logp, tail, 2.0))


def test_a_masked_student_column_is_floored_and_pulls_on_nothing():
    logits = torch.tensor([[0.0, -INF, 1.0]], dtype=torch.float64, requires_grad=True)
    half = torch.tensor([[0.5]], dtype=torch.float64).log()
    term = forward_kl(logits, SparseTeacher(torch.tensor([[1]]), half, half[0]))
    lse = math.log(1 + math.e)
    assert float(term.total.detach()) == pytest.approx(math.log(0.5) - 0.5 * (1.0 - 60.0 - lse))
    term.total.backward()
    assert torch.equal(logits.grad, torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("sparse", [True, False])
def test_columns_masked_on_both_sides_do_not_exist(sparse):
    student, logits = student_logits(3, 8, 2, torch.float64).detach(), teacher_logits(3, 8, 2)
    student[:, 5], logits[:, 5] = -INF, -INF
    left = [0, 1, 2, 3, 4, 6, 7]
    values = [
        float(forward_kl(z, SparseTeacher(*top_k(t, 3).values()) if sparse else DenseTeacher(t)).total)
        for z, t in ((student, logits), (student[:, left], logits[:, left]))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-12)


def test_a_masked_teacher_column_has_no_mass():
    student, logits = student_logits(3, 8, 3, torch.float64).detach(), teacher_logits(3, 8, 3)
    logits[:, 5] = -INF
    logp, logq = logits.log_softmax(1), student.log_softmax(1)
    expected = (logp.exp() * (logp - logq)).nan_to_num(0.0).sum()
    assert float(forward_kl(student, DenseTeacher(logits)).total) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("teacher", ["sparse", "dense"])
def test_a_mask_of_rows(teacher):
    student, ids, logp, tail, logits = case()
    given = SparseTeacher(ids, logp, tail) if teacher == "sparse" else DenseTeacher(logits)
    mask = torch.tensor([True, False, True, True, False, True])
    term = forward_kl(student, given, mask=mask)
    columns = (student, ids, logp, tail) if teacher == "sparse" else (student, logits)
    row_oracle = sparse_row if teacher == "sparse" else dense_row
    values = rows(lambda *r: row_oracle("forward_kl", *r), *columns)
    assert term.count == 4
    assert float(term.total.detach()) == pytest.approx(
        sum(value for value, kept in zip(values, mask.tolist(), strict=True) if kept), abs=1e-12
    )
    term.total.backward()
    assert bool((student.grad[~mask] == 0).all())


def test_shapes_that_do_not_match_are_refused():
    student, ids, logp, tail, logits = case()
    with pytest.raises(ValueError, match=r"targets must have as many rows as logits \(6\): 5"):
        forward_kl(student, SparseTeacher(ids[:5], logp[:5], tail[:5]))
    with pytest.raises(ValueError, match=r"targets must have as many rows as logits \(6\): 5"):
        forward_kl(student, DenseTeacher(logits[:5]))
    with pytest.raises(ValueError, match=r"mask must have as many rows as logits \(6\): \[5\]"):
        forward_kl(student, DenseTeacher(logits), mask=torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="floating point"):
        forward_kl(student[0], SparseTeacher(ids, logp, tail))


def test_a_negative_id_is_refused():
    student, ids, logp, tail, _ = case()
    ids[2, 1] = -1
    with pytest.raises(DataError, match=r"topk_ids must be >= 0, in row\(s\): 2"):
        forward_kl(student, SparseTeacher(ids, logp, tail))


@pytest.mark.parametrize("teacher", ["sparse", "dense"])
def test_one_buffer_of_the_size_of_the_logits_is_kept(teacher):
    student, ids, logp, tail, logits = case(n=64, vocab=512)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        forward_kl(student, SparseTeacher(ids, logp, tail) if teacher == "sparse" else DenseTeacher(logits))
    assert sum(kept) == 64 * 512 + 64
