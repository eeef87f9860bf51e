"""What every loss of the table keeps, and what the sparse KL keeps for any teacher."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast.losses import LOSSES, forward_kl
from naive_losses import bucket_kl, kl, log_softmax

VOCAB, K = 17, 5
EVERY = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
DIVERGENCES = pytest.mark.parametrize("loss", [x for x in LOSSES if x.divergence], ids=lambda loss: loss.name)


def teacher(n, seed, scale=2.0):
    generator = torch.Generator().manual_seed(seed + 1000)
    return torch.log_softmax(torch.randn(n, VOCAB, generator=generator, dtype=torch.float64) * scale, 1)


def fields(loss, n, seed):
    """Every batch field that a loss may need, of one random teacher."""
    full = teacher(n, seed)
    logp, ids = full.topk(K, dim=1)
    made = {
        "labels": torch.randint(VOCAB, (n,), generator=torch.Generator().manual_seed(seed)),
        "teacher_topk_ids": ids.int(),
        "teacher_topk_logp": logp.float(),
        "teacher_tail_logp": full.scatter(1, ids, -math.inf).logsumexp(1).float(),
    }
    return {argument: made[field] for argument, field in loss.needs.items()}


def student(n, seed, dtype=torch.float32):
    x = torch.randn(n, VOCAB, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    return x.to(dtype).requires_grad_()


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_maths_is_fp32_or_fp64_for_any_input(loss, dtype):
    x = student(9, 1, dtype)
    term = loss.function(x, **fields(loss, 9, 1))
    exact = loss.function(x.detach().double(), **fields(loss, 9, 1))
    assert term.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(term.total.detach()) == pytest.approx(float(exact.total), rel=1e-5)
    term.total.backward()
    assert x.grad.dtype == dtype


@EVERY
def test_no_row_is_exactly_0_on_the_graph(loss):
    x = torch.zeros(4, VOCAB, requires_grad=True)
    none = {key: value[:0] for key, value in fields(loss, 4, 0).items()}
    term = loss.function(x[:0], **none)
    assert (float(term.total.detach()), term.count) == (0.0, 0)
    term.total.backward()
    assert torch.equal(x.grad, torch.zeros(4, VOCAB))


@EVERY
def test_gradient_of_a_row_sums_to_0(loss):
    x = student(9, 2, torch.float64)
    loss.function(x, **fields(loss, 9, 2)).total.backward()
    assert float(x.grad.sum(1).abs().max()) < 1e-7
    assert float(x.grad.abs().max()) > 1e-3


@EVERY
def test_grad_output_other_than_1_is_exact(loss):
    one, many = student(9, 3), student(9, 3)
    loss.function(one, **fields(loss, 9, 3)).total.backward()
    (loss.function(many, **fields(loss, 9, 3)).total * 0.25).backward()
    assert torch.equal(many.grad, one.grad * 0.25)


@EVERY
def test_row_order_and_splits_do_not_matter(loss):
    x, given_fields = student(12, 4, torch.float64), fields(loss, 12, 4)
    whole = loss.function(x, **given_fields)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    parts = [
        loss.function(x[rows], **{key: value[rows] for key, value in given_fields.items()})
        for rows in order.split(5)
    ]
    assert float(sum(part.total for part in parts).detach()) == pytest.approx(
        float(whole.total.detach()), abs=1e-9
    )
    assert sum(part.count for part in parts) == whole.count
    gradients = [torch.autograd.grad(t, x)[0] for t in (whole.total, sum(part.total for part in parts))]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


@EVERY
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_student_nan_raises_or_skips_the_row(loss, value):
    x = student(6, 5).detach()
    x[3, 2] = value
    x.requires_grad_()
    with pytest.raises(FloatingPointError, match=r"in 1 row\(s\): 3"):
        loss.function(x, **fields(loss, 6, 5))
    term = loss.function(x, nan="skip_row", **fields(loss, 6, 5))
    others = torch.tensor([0, 1, 2, 4, 5])
    clean = loss.function(x.detach()[others], **{k: v[others] for k, v in fields(loss, 6, 5).items()})
    assert (term.count, term.skipped) == (6, 1)
    assert float(term.total.detach()) == pytest.approx(float(clean.total), rel=1e-6)
    term.total.backward()
    assert bool((x.grad[3] == 0).all())
    assert bool(x.grad.isfinite().all())
    with pytest.raises(ValueError, match="nan must be"):
        loss.function(x, nan="ignore", **fields(loss, 6, 5))


@pytest.mark.parametrize("loss", [x for x in LOSSES if x.temperature], ids=lambda loss: loss.name)
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_finite_and_above_0(loss, temperature):
    with pytest.raises(ValueError, match="temperature must be finite and above 0"):
        loss.function(student(2, 0), temperature=temperature, **fields(loss, 2, 0))


@DIVERGENCES
def test_student_equal_to_teacher_has_0_and_no_gradient(loss):
    x = teacher(8, 6).float().requires_grad_()
    term = loss.function(x, **fields(loss, 8, 6))
    assert abs(float(term.total.detach())) < 8e-6
    term.total.backward()
    assert float(x.grad.abs().max()) < 1e-6


@EVERY
def test_extreme_logits_stay_finite(loss):
    for size in (1e4, 3e4):
        x = (student(9, 7).detach().sign() * size).requires_grad_()
        term = loss.function(x, **fields(loss, 9, 7))
        term.total.backward()
        assert bool(term.total.isfinite()), size
        assert bool(x.grad.isfinite().all()), size


@EVERY
def test_validation_keeps_no_buffer(loss):
    kept = []
    with (
        torch.no_grad(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        term = loss.function(student(4, 8).detach(), **fields(loss, 4, 8))
    assert kept == []
    assert not term.total.requires_grad


@st.composite
def rows(draw):
    """One student and one teacher row with a choice of ids, possibly peaked."""
    vocab = draw(st.integers(2, 9))
    numbers = st.lists(st.floats(-30, 30), min_size=vocab, max_size=vocab)
    k = draw(st.integers(1, vocab))
    return draw(numbers), draw(numbers), draw(st.permutations(range(vocab))), k


def sparse(z, full, ids):
    """The value for a teacher known on some ids."""
    rest = [p for i, p in enumerate(full) if i not in ids]
    tail = torch.tensor([rest], dtype=torch.float64).logsumexp(1) if rest else torch.tensor([-math.inf])
    logp = torch.tensor([[full[i] for i in ids]], dtype=torch.float64)
    arguments = torch.tensor([z], dtype=torch.float64), torch.tensor([list(ids)]), logp, tail.double()
    value = float(forward_kl(*arguments).total)
    return value, bucket_kl(*arguments)


@given(rows())
@settings(max_examples=60)
def test_bucket_kl_is_between_0_and_the_full_kl_and_grows_with_ids(example):
    z, teacher_logits, order, k = example
    full = log_softmax(teacher_logits)
    before = 0.0
    for size in range(1, k + 1):
        value, slow = sparse(z, full, order[:size])
        assert value == pytest.approx(slow, abs=1e-9)
        assert value >= before - 1e-9
        before = value
    assert before <= kl(full, log_softmax(z)) + 1e-9
