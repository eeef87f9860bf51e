"""linear_kd in half precision and under autocast."""

import copy

import pytest
import torch
from linear_kd_cases import (
    N,
    Tied,
    V,
    model,
    simple_targets,
)

from kdfast.losses import (
    RowTargets,
    forward_kl,
    linear_kd,
)


@pytest.mark.parametrize("hidden_dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float32])
def test_bf16_without_autocast(hidden_dtype, weight_dtype):
    exact, half = model(torch.float32), model(torch.float32)
    mine = (
        half[0].detach().to(hidden_dtype).requires_grad_(),
        half[1].detach().to(weight_dtype).requires_grad_(),
    )
    linear_kd(*exact, simple_targets()).total.backward()
    total = linear_kd(*mine, simple_targets(), chunk_rows=4).total
    assert total.dtype == torch.float32
    total.backward()
    for got, expected in zip(mine, exact, strict=True):
        assert got.grad.dtype == got.dtype
        torch.testing.assert_close(
            got.grad.float(), expected.grad, rtol=0.05, atol=0.02 * float(expected.grad.abs().max())
        )


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "own head"])
def test_bf16_autocast_is_within_bf16_of_fp32(tied):
    torch.manual_seed(0)
    exact = Tied(tied=tied)
    mine, plain, ids = copy.deepcopy(exact), copy.deepcopy(exact), torch.arange(N) % V
    exact(ids, simple_targets()).backward()
    with torch.autocast("cpu", torch.bfloat16):
        total = mine(ids, simple_targets())
        rounded = plain(ids, simple_targets(), fused=False)
    assert total.dtype == torch.float32
    assert float(total.detach()) == pytest.approx(float(rounded.detach()), rel=1e-5)
    total.backward()
    rounded.backward()
    for (name, got), one, other in zip(
        mine.named_parameters(), exact.parameters(), plain.parameters(), strict=True
    ):
        assert got.grad.dtype == torch.float32
        size = float(one.grad.abs().max())
        torch.testing.assert_close(got.grad, one.grad, rtol=0, atol=0.03 * size, msg=name)
        torch.testing.assert_close(got.grad, other.grad, rtol=0, atol=0.03 * size, msg=name)


def test_the_sum_over_chunks_is_fp32_under_autocast():
    # 2,048 equal rows, one a chunk: a bf16 sum would stop growing at 256 of them
    hidden, weight = torch.ones(2048, 2), torch.zeros(4, 2, requires_grad=True)
    targets = RowTargets(labels=torch.zeros(2048, 1, dtype=torch.int64))
    with torch.autocast("cpu", torch.bfloat16):
        linear_kd(hidden, weight, targets, chunk_rows=1).total.backward()
    assert weight.grad[0].tolist() == pytest.approx([-0.75 * 2048] * 2)


def test_half_precision_logits_have_fp32_maths():
    hidden, weight = model(torch.bfloat16)
    logits = (hidden @ weight.T).detach()
    result = linear_kd(hidden, weight, simple_targets())
    exact = forward_kl(logits.double(), simple_targets().teacher).total
    assert float(result.kl.sum()) == pytest.approx(float(exact), rel=1e-5)
