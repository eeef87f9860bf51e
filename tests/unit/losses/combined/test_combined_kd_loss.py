"""All terms together: equal to the slow twin, splits do not matter, no gradient where there should be none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_batches import DIM, EOS, VOCAB, T, batch, double, model, settings
from plain_terms import plain_terms, plain_total
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdfast.losses import (
    DIVERGENCES,
    CombinedLoss,
    SparseTeacher,
    StepWeights,
    StudentOutput,
    combined_kd_loss,
    early_tool_plan,
    forward_kl,
    length_plan,
    plan_batch,
    planned_loss,
    supervised_mask,
    term_weights,
)


def gradients(total: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, of, allow_unused=True)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("chunk_rows", [1, 5, 256])
def test_it_equals_its_slow_twin(divergence: str, chunk_rows: int) -> None:
    given = settings(divergence=divergence, jsd_beta=0.3, chunk_rows=chunk_rows)
    some, (hidden, weight) = double(batch()), model()
    fused = combined_kd_loss(hidden, weight, some, given)
    plain = plain_terms(hidden, weight, some, given)
    assert set(fused.terms) == set(plain)
    assert len(fused.terms) == 9
    for name, term in plain.items():
        other = fused.terms[name]
        assert float(other.total.detach()) == pytest.approx(float(term.total.detach()), rel=1e-10), name
        assert other.count == pytest.approx(term.count), name
        assert abs(float(term.total.detach())) > 1e-6, name
    total = plain_total(plain, given)
    torch.testing.assert_close(fused.total, total, rtol=1e-7, atol=0)
    for one, other in zip(
        gradients(fused.total, hidden, weight), gradients(total, hidden, weight), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_split_into_micro_batches_it_gives_the_same_loss_and_gradient(size: int) -> None:
    given, some, (hidden, weight) = settings(), double(batch()), model()
    counts = plan_batch(some, given).counts
    whole = combined_kd_loss(hidden, weight, some, given, counts=counts)
    parts = []
    for start in range(0, 6, size):
        rows = slice(start, start + size)
        part = {name: value[rows] for name, value in some.items()}
        parts.append(combined_kd_loss(hidden[rows], weight, part, given, counts=counts).total)
    total = torch.stack(parts).sum()
    torch.testing.assert_close(total, whole.total, rtol=1e-12, atol=0)
    for one, other in zip(
        gradients(total, hidden, weight), gradients(whole.total, hidden, weight), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)


def test_counts_are_known_before_the_forward_and_equal_the_terms_own() -> None:
    given, some, (hidden, weight) = settings(), double(batch()), model()
    counts = plan_batch(some, given).counts
    terms = combined_kd_loss(hidden, weight, some, given).terms
    assert {name: term.count for name, term in terms.items()} == pytest.approx(dict(counts))


def test_no_gradient_outside_the_supervised_positions_or_where_no_call_is_due() -> None:
    some, (hidden, weight) = double(batch()), model()
    mask = supervised_mask(some)
    loss = combined_kd_loss(hidden, weight, some, settings())
    (gradient,) = gradients(loss.total, hidden)
    assert bool((gradient[~mask] == 0).all())
    assert bool((gradient[mask].abs().sum(-1) > 0).all())
    # the early-tool terms alone: rows that must not call stay untouched
    only = settings(
        kl_weight=0.0, ce_teacher_weight=0.0, sampled_kl_weight=0.0, ce_truth_weight=1e-300,
        length_weight=0.0, early_tool_negative_weight=0.0,
    )  # fmt: skip
    (gradient,) = gradients(combined_kd_loss(hidden, weight, some, only).total, hidden)
    due = some["tool_should_be_used"]
    assert float(gradient[~due].abs().max()) < 1e-200
    assert bool((gradient[due].abs().sum((1, 2)) > 1e-9).all())


def test_length_and_early_tool_gradients_stay_in_their_planned_positions() -> None:
    some, (hidden, weight) = double(batch()), model()
    off = {"kl_weight": 0.0, "ce_teacher_weight": 0.0, "sampled_kl_weight": 0.0, "ce_truth_weight": 1e-300}
    given = settings(**off, early_tool_preamble_weight=0.5, length_hinge=0.0)
    (gradient,) = gradients(combined_kd_loss(hidden, weight, some, given).total, hidden)
    early = early_tool_plan(
        some, max_tokens=4, parts=("early_tool_prior", "early_tool_preamble", "early_tool_negative")
    )
    planned = length_plan(some, [EOS]).gate | early.opening | (early.targets != -100)
    assert float(gradient[~planned].abs().max()) < 1e-200


def test_a_batch_without_anything_to_learn_costs_0_on_the_graph() -> None:
    some, (hidden, weight) = batch(), model()
    nothing = {name: torch.zeros_like(value) for name, value in some.items()} | {
        "labels": torch.full((6, T), -100),
        "teacher_prefix_ids": torch.full((6, 4), -100),
    }
    loss = combined_kd_loss(hidden, weight, nothing, settings())
    assert float(loss.total.detach()) == 0.0
    assert all(term.count == 0 for term in loss.terms.values())
    for gradient in gradients(loss.total, hidden, weight):
        assert gradient is not None
        assert not gradient.any()


def test_nan_names_the_term_and_the_row_or_is_left_out_and_counted() -> None:
    some, (hidden, weight) = double(batch()), model()
    broken = hidden.detach().clone()
    broken[3, int(some["response_start"][3])] = 1.7e308  # its logits are infinite
    broken.requires_grad_()
    with pytest.raises(FloatingPointError, match=r"kl: logits are not finite in 1 row\(s\): 103"):
        combined_kd_loss(broken, weight, some, settings())
    loss = combined_kd_loss(broken, weight, some, settings(on_nan="skip_row"))
    assert loss.terms["kl"].skipped == 1
    assert loss.terms["ce_truth"].skipped == 1
    assert loss.terms["ce_teacher"].skipped == 0
    clean = combined_kd_loss(hidden, weight, some, settings())
    assert loss.terms["kl"].count == clean.terms["kl"].count
    for gradient in gradients(loss.total, broken, weight):
        assert bool(gradient.isfinite().all())


def test_the_state_opens_and_closes_the_hinge_of_the_length_term() -> None:
    some, (hidden, weight) = double(batch()), model()
    given = settings(length_aggregate="ema")
    plan = plan_batch(some, given, vocab_size=VOCAB, dtype=torch.float64)

    def loss(average: float | None) -> CombinedLoss:
        step = StepWeights(term_weights(given.kd), plan.counts, {"length": {"average": average}})
        return planned_loss(StudentOutput(hidden, weight), plan, step, given).read()

    opened = loss(0.1)
    excess = opened.observed["length"]["excess"]
    assert float(opened.terms["length"].total.detach()) == pytest.approx(excess)
    assert opened.observed["length"]["rows"] == opened.terms["length"].count > 0
    for closed in (loss(None), loss(-0.1)):
        assert float(closed.terms["length"].total.detach()) == 0.0
        assert closed.observed == opened.observed


def test_weights_of_a_step_replace_those_of_the_config() -> None:
    some, (hidden, weight) = double(batch()), model()
    given = settings()
    names = term_weights(given.kd)
    halves = {name: value / 2 for name, value in names.items()}
    one = combined_kd_loss(hidden, weight, some, given).total
    half = combined_kd_loss(hidden, weight, some, given, weights=halves).total
    torch.testing.assert_close(half, one / 2)


def test_a_batch_without_a_teacher_has_no_kl() -> None:
    some, (hidden, weight) = double(batch()), model()
    untaught = {
        name: value
        for name, value in some.items()
        if not name.startswith(("teacher_topk", "teacher_tail", "teacher_sample"))
    }
    loss = combined_kd_loss(hidden, weight, untaught, settings())
    assert "kl" not in loss.terms
    assert "sampled_kl" not in loss.terms
    assert plan_batch(untaught, settings()).counts["kl"] == 0


class _Largest(TorchDispatchMode):
    """The most numbers that any tensor made under it holds."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_the_fused_path_never_holds_the_logits_of_all_positions() -> None:
    some = double(batch(24))
    hidden, weight = model(24)
    given = settings(chunk_rows=8)
    with _Largest() as largest:
        combined_kd_loss(hidden, weight, some, given).total.backward()
    positions = int(supervised_mask(some).sum())
    assert positions * VOCAB > 2400
    assert largest.numbers < positions * VOCAB / 1.4
    with _Largest() as plain:
        plain_total(plain_terms(hidden, weight, some, given), given).backward()
    assert plain.numbers >= positions * VOCAB


def test_the_gradient_reaches_every_parameter_of_a_model() -> None:
    torch.manual_seed(0)
    body, head = (
        torch.nn.Sequential(torch.nn.Embedding(9, DIM), torch.nn.Linear(DIM, DIM)),
        torch.nn.Linear(DIM, VOCAB, bias=False),
    )
    some = batch()
    hidden = body(torch.randint(0, 9, (6, T)))
    combined_kd_loss(hidden, head.weight, some, settings()).total.backward()
    for name, parameter in [*body.named_parameters(), *head.named_parameters()]:
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_forward_kl_is_the_default_divergence() -> None:
    some, (hidden, weight) = double(batch()), model()
    mask = supervised_mask(some)
    teacher = SparseTeacher(
        *(some[f"teacher_{name}"][mask] for name in ("topk_ids", "topk_logp", "tail_logp"))
    )
    expected = forward_kl((hidden @ weight.T)[mask], teacher, mask=some["teacher_topk_mask"][mask])
    found = combined_kd_loss(hidden, weight, some, settings()).terms["kl"]
    assert float(found.total) == pytest.approx(float(expected.total.detach()))
