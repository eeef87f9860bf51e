import math
import warnings

import pytest
import torch

from kdfast.errors import DataError
from kdfast.losses import forward_kl
from naive_losses import bucket_kl, kl, log_softmax

INF = math.inf


def case(n=6, vocab=13, k=4, dtype=torch.float64, seed=0):
    """A random student and a random teacher's exact top-k with its exact tail."""
    generator = torch.Generator().manual_seed(seed)
    student = (torch.randn(n, vocab, generator=generator, dtype=torch.float64) * 2).to(dtype)
    teacher = torch.log_softmax(torch.randn(n, vocab, generator=generator, dtype=torch.float64) * 2, 1)
    logp, ids = teacher.topk(k, dim=1)
    rest = teacher.scatter(1, ids, -INF)
    return student.requires_grad_(), ids.int(), logp, rest.logsumexp(1), teacher


def row(logits, ids, logp, tail, **options):
    """One row's value in float64."""
    term = forward_kl(
        torch.tensor([logits], dtype=torch.float64),
        torch.tensor([ids]),
        torch.tensor([logp], dtype=torch.float64),
        torch.tensor([tail], dtype=torch.float64),
        **options,
    )
    assert term.count == 1
    return float(term.total)


def test_value_equals_the_naive_twin():
    student, ids, logp, tail, _ = case()
    term = forward_kl(student, ids, logp, tail)
    assert float(term.total.detach()) == pytest.approx(bucket_kl(student, ids, logp, tail), abs=1e-12)
    assert term.count == 6


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
            return forward_kl(x, ids, logp, tail, temperature=1.7, logprob_temperature=1.7).total

    assert torch.autograd.gradcheck(total, student)
    expected = bucket_kl(student, ids, logp, tail, 1.7)
    assert float(total(student).detach()) == pytest.approx(expected, abs=1e-12)


def test_equals_the_full_kl_when_k_is_the_vocabulary():
    student, ids, logp, _, teacher = case(k=13)
    full = sum(kl(p, log_softmax(z)) for p, z in zip(teacher.tolist(), student.tolist(), strict=True))
    for tail in (-INF, -30.0):  # no tail: whatever is stored for it is dropped
        term = forward_kl(student, ids, logp, torch.full((6,), tail))
        assert float(term.total.detach()) == pytest.approx(full, abs=1e-11)


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


@pytest.mark.parametrize("tail", [0.0, -INF])
def test_a_row_without_entries_has_kl_0(tail):
    assert row([3.0, 1.0, 2.0], [0, 0], [-INF, -INF], tail) == 0.0


def test_a_peaked_teacher_without_a_tail():
    assert row([3.0, 1.0, 2.0], [1], [0.0], -INF) == pytest.approx(-log_softmax([3.0, 1.0, 2.0])[1])


def test_never_clamped_and_never_renormalised_over_the_top_k():
    # right shape inside the top-k, wrong mass outside: a student renormalised over the top-k would see 0
    inside = row([5.0, 5.0, 9.0], [0, 1], [math.log(0.45)] * 2, math.log(0.1))
    share = math.exp(log_softmax([5.0, 5.0, 9.0])[0])
    assert inside == pytest.approx(0.9 * math.log(0.45 / share) + 0.1 * math.log(0.1 / (1 - 2 * share)))


def test_temperature_is_the_stored_one_and_its_square_multiplies():
    student, ids, logp, tail, _ = case()
    hot = forward_kl(student, ids, logp, tail, temperature=2.0, logprob_temperature=2.0).total
    cool = forward_kl(student / 2, ids, logp, tail).total
    assert float(hot.detach()) == pytest.approx(4 * float(cool.detach()))
    with pytest.raises(ValueError, match=r"stored log-probabilities \(1.0\).*: 2.0"):
        forward_kl(student, ids, logp, tail, temperature=2.0)


@pytest.mark.parametrize("what", ["logp", "tail"])
@pytest.mark.parametrize("value", [math.nan, INF])
def test_teacher_nan_names_the_row(what, value):
    student, ids, logp, tail, _ = case()
    (logp if what == "logp" else tail)[3] = value
    with pytest.raises(DataError, match=r"teacher log-probabilities are NaN or \+inf in row\(s\): 3"):
        forward_kl(student, ids, logp, tail)


def test_negative_id_is_refused_unless_ignored():
    student, ids, logp, tail, _ = case()
    ids[2, 1] = -1
    with pytest.raises(DataError, match=r"topk_ids must be >= 0, in row\(s\): 2"):
        forward_kl(student, ids, logp, tail)
    logp[2, 1] = -INF
    with pytest.warns(RuntimeWarning, match="do not add up"):
        assert float(forward_kl(student, ids, logp, tail).total.detach()) > 0


def test_masses_that_do_not_add_up_warn_but_fp16_rounding_does_not():
    student, ids, logp, tail, _ = case()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forward_kl(student, ids, logp.half(), tail.half())
    logp[4] += 0.01
    with pytest.warns(RuntimeWarning, match=r"row\(s\): 4"):
        forward_kl(student, ids, logp, tail)


def test_a_masked_student_column_is_floored_and_pulls_on_nothing():
    logits = torch.tensor([[0.0, -INF, 1.0]], dtype=torch.float64, requires_grad=True)
    half = torch.tensor([[0.5]], dtype=torch.float64).log()
    term = forward_kl(logits, torch.tensor([[1]]), half, half[0])
    lse = math.log(1 + math.e)
    assert float(term.total.detach()) == pytest.approx(math.log(0.5) - 0.5 * (1.0 - 60.0 - lse) - 0.5 * 0.0)
    term.total.backward()
    assert torch.equal(logits.grad, torch.zeros(1, 3, dtype=torch.float64))


def test_rows_outside_the_mask_cost_nothing_even_when_broken():
    student, ids, logp, tail, _ = case()
    wrong, bad_tail = student.detach().clone(), tail.clone()
    wrong[1], bad_tail[1] = math.nan, math.nan
    wrong.requires_grad_()
    mask = torch.tensor([True, False, True, True, False, True])
    term = forward_kl(wrong, ids, logp, bad_tail, mask=mask)
    assert term.count == 4
    assert float(term.total.detach()) == pytest.approx(
        bucket_kl(student[mask], ids[mask], logp[mask], tail[mask]), abs=1e-12
    )
    term.total.backward()
    assert bool((wrong.grad[~mask] == 0).all())
    with pytest.raises(FloatingPointError, match=r"row\(s\): 1"):
        forward_kl(wrong, ids, logp, tail)


def test_shapes_that_do_not_match_are_refused():
    student, ids, logp, tail, _ = case()
    with pytest.raises(ValueError, match=r"topk_ids must have as many rows as logits \(6\)"):
        forward_kl(student, ids[:5], logp, tail)
    with pytest.raises(ValueError, match=r"must both be \[N,K\]"):
        forward_kl(student, ids[:, :3], logp, tail)
    with pytest.raises(ValueError, match="floating point"):
        forward_kl(student[0], ids, logp, tail)


def test_one_buffer_of_the_size_of_the_logits_is_kept():
    student, ids, logp, tail, _ = case(n=64, vocab=512)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        forward_kl(student, ids, logp, tail)
    assert sum(kept) == 64 * 512 + 64
