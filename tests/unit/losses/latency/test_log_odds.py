import math

import naive_latency
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdfast.losses.latency.log_odds import check_ids, linear_log_odds, log_odds

INF = math.inf
IDS = (3, 0, 7)


def logits(m=5, vocab=11, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(m, vocab, generator=generator, dtype=torch.float64) * 3).to(dtype).requires_grad_()


def layer(m=7, width=6, vocab=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(m, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, width, generator=generator, dtype=torch.float64)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()


def test_by_hand():
    # e^d = (2 + 3) / (1 + 4)
    row = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    assert log_odds(row, [1, 2]).item() == pytest.approx(0.0, abs=1e-7)
    assert log_odds(row, [3]).item() == pytest.approx(math.log(4 / 6))
    assert log_odds(torch.zeros(1, 2), [1]).item() == 0.0


def test_equals_the_naive_twin_and_takes_repeats_for_one():
    x = logits()
    slow = [naive_latency.log_odds(row, IDS) for row in x.tolist()]
    assert log_odds(x, IDS).tolist() == pytest.approx(slow, abs=1e-12)
    assert torch.equal(log_odds(x, [*IDS, 3, 7]), log_odds(x, sorted(IDS)))


def test_gradcheck():
    weights = torch.linspace(-1, 2, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: log_odds(x, IDS) * weights, logits())
    hidden, weight = layer()
    assert torch.autograd.gradcheck(lambda h, w: linear_log_odds(h, w, IDS, chunk_rows=3), (hidden, weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_maths_is_fp32_or_fp64_for_any_input(dtype):
    x = logits(dtype=dtype)
    value = log_odds(x, IDS)
    exact = log_odds(x.detach().double(), IDS)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(value.detach().double(), exact, rtol=0, atol=2e-6)
    value.sum().backward()
    assert x.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_anything_but_nan_is_finite(dtype):
    values = [INF, -INF, 1e30, -1e30, 1e4, -1e4, 0.0]
    rows = [[a, b, a, b] for a in values for b in values] + [[INF, -INF, -INF, -INF], [-INF] * 4, [INF] * 4]
    x = torch.tensor(rows, dtype=dtype, requires_grad=True)
    value = log_odds(x, [0, 3])
    assert bool(value.isfinite().all())
    assert float(value.detach().abs().max()) < 2.1e4
    value.sum().backward()
    assert bool(x.grad.isfinite().all())
    assert bool((x.grad[x.detach().abs() > 1e4] == 0).all())  # beyond the clamp nothing pulls


def test_large_logits_lose_no_digits_in_fp32():
    x = logits(dtype=torch.float32).detach()
    exact = log_odds((x + 8192).double() - 8192, IDS)
    torch.testing.assert_close(log_odds(x + 8192, IDS).double(), exact, rtol=0, atol=2e-6)


def test_nan_stays_in_its_row():
    x = logits().detach()
    x[2, 5] = math.nan
    x.requires_grad_()
    value = log_odds(x, IDS)
    assert value.isnan().tolist() == [False, False, True, False, False]
    value.sum().backward()
    assert bool((x.grad[2] == 0).all())
    assert bool((x.grad[[0, 1, 3, 4]].abs().sum(1) > 0).all())


def test_bad_ids_are_refused():
    x = logits()
    for ids, message in (
        ([], "ids must not be empty"),
        ([-1], "not be negative: -1"),
        ([1, 11], r"in 0..10: 11"),
    ):
        with pytest.raises(ValueError, match=message):
            log_odds(x, ids)
        with pytest.raises(ValueError, match=message):
            linear_log_odds(*layer(), ids)
    with pytest.raises(ValueError, match="at least one other id of the vocabulary: all 11"):
        log_odds(x, range(11))
    with pytest.raises(ValueError, match="must not be negative: -2"):
        check_ids([5, -2])
    with pytest.raises(ValueError, match=r"floating point \[N,V\]"):
        log_odds(x[0], IDS)


def test_no_row_is_on_the_graph():
    x = logits()
    log_odds(x[:0], IDS).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    hidden, weight = layer()
    linear_log_odds(hidden[:0], weight, IDS).sum().backward()
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 256])
def test_linear_equals_the_plain_one_for_any_chunk(dtype, chunk_rows):
    hidden, weight = layer(dtype=dtype)
    plain = log_odds(hidden @ weight.T, IDS)
    linear = linear_log_odds(hidden, weight, IDS, chunk_rows=chunk_rows)
    grad = torch.linspace(-1, 2, 7).to(plain.dtype)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(linear, plain, rtol=0, atol=1e-5)
    expected = torch.autograd.grad(plain, (hidden, weight), grad)
    for mine, theirs in zip(torch.autograd.grad(linear, (hidden, weight), grad), expected, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


class Products(TorchDispatchMode):
    """Counts multiplications in matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_"):
            left, right = args[-2:]
            self.count += left.shape[0] * left.shape[1] * right.shape[1]
        return function(*args, **(kwargs or {}))


def products(run):
    """Matrix products that a call makes, of the size of the layer's forward."""
    with Products() as counter:
        run()
    return counter.count / (7 * 6 * 11)


def test_frozen_inputs_skip_their_products():
    hidden, weight = layer()
    for inputs, wanted in (
        ((hidden, weight), 3),  # the logits again, to hidden, to weight
        ((hidden, weight.detach()), 2),
        ((hidden.detach(), weight), 2),
    ):
        value = linear_log_odds(*inputs, IDS)
        assert products(value.sum().backward) == wanted
    assert not linear_log_odds(hidden.detach(), weight.detach(), IDS).requires_grad


def test_a_row_with_nan_reaches_nothing():
    hidden, weight = layer()
    broken = hidden.detach().clone()
    broken[4, 0] = math.nan
    broken.requires_grad_()
    value = linear_log_odds(broken, weight, IDS)
    value.sum().backward()
    assert bool((broken.grad[4] == 0).all())
    got = weight.grad
    weight.grad = None
    linear_log_odds(hidden[[0, 1, 2, 3, 5, 6]], weight, IDS).sum().backward()
    torch.testing.assert_close(got, weight.grad)


def test_autocast_makes_the_products_in_bf16():
    hidden, weight = layer(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = linear_log_odds(hidden, weight, IDS)
        plain = log_odds(hidden @ weight.T, IDS)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, plain, rtol=0, atol=1e-6)
    assert (value - log_odds(hidden @ weight.T, IDS)).abs().max().item() > 1e-4
    value.sum().backward()
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.float32, torch.float32)
    exact = torch.autograd.grad(log_odds(hidden @ weight.T, IDS).sum(), (hidden, weight))
    torch.testing.assert_close(hidden.grad, exact[0], rtol=0.05, atol=0.05)
    torch.testing.assert_close(weight.grad, exact[1], rtol=0.05, atol=0.05)


def test_shapes_that_do_not_match_are_refused():
    hidden, weight = layer()
    with pytest.raises(ValueError, match=r"weight must be \[V,6\]"):
        linear_log_odds(hidden, weight[:, :5], IDS)
    with pytest.raises(ValueError, match="chunk_rows must be at least 1: 0"):
        linear_log_odds(hidden, weight, IDS, chunk_rows=0)
