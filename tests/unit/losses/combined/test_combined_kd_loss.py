"""All terms together: fused equals plain, splits do not matter, and nothing has a gradient that should not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_batches import DIM, EOS, OPEN, VOCAB, T, batch, double, model, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdfast.losses import (
    Term,
    combined_kd_loss,
    cross_entropy,
    early_tool_call_loss,
    early_tool_plan,
    forward_kl,
    generalized_jsd,
    length_aware_kd_loss,
    length_plan,
    plan_batch,
    sampled_kl,
    span_weights,
    supervised_mask,
    term_weights,
)
from kdfast.losses.rows.teacher import SparseTeacher


def gradients(total: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, of, allow_unused=True)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "generalized_jsd", "skew_kl"])
@pytest.mark.parametrize("chunk_rows", [1, 5, 256])
def test_fused_equals_plain(divergence: str, chunk_rows: int) -> None:
    some, (hidden, weight) = double(batch()), model()
    fused = combined_kd_loss(hidden, weight, some, settings(divergence=divergence, chunk_rows=chunk_rows))
    plain = combined_kd_loss(hidden, weight, some, settings(divergence=divergence, fused=False))
    assert list(fused.terms) == list(plain.terms)
    assert len(fused.terms) == 9
    for name, term in plain.terms.items():
        other = fused.terms[name]
        assert float(other.total) == pytest.approx(float(term.total.detach()), rel=1e-10), name
        assert other.count == pytest.approx(term.count), name
        assert abs(float(term.total.detach())) > 1e-6, name
    torch.testing.assert_close(fused.total, plain.total, rtol=1e-10, atol=0)
    for one, other in zip(
        gradients(fused.total, hidden, weight), gradients(plain.total, hidden, weight), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(fused.relative_excess, plain.relative_excess, rtol=1e-10, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_the_total_is_the_weighted_sum_of_the_public_losses(fused: bool) -> None:
    given = settings(fused=fused, divergence="generalized_jsd", jsd_beta=0.3)
    some, (hidden, weight) = double(batch()), model()
    mask = supervised_mask(some)
    logits = (hidden @ weight.T)[mask]
    spans = span_weights(some, name_weight=0.15, args_weight=0.15)[mask]
    source, labels = some["source"][:, None], some["labels"]
    teacher = SparseTeacher(
        *(some[f"teacher_{name}"][mask] for name in ("topk_ids", "topk_logp", "tail_logp"))
    )
    early = early_tool_call_loss(logits, mask, some, opening_ids=OPEN, options=_early_options())
    expected: dict[str, Term] = {
        "kl": generalized_jsd(logits, teacher, beta=0.3, mask=some["teacher_topk_mask"][mask]),
        "sampled_kl": sampled_kl(
            logits,
            some["teacher_sample_ids"][mask],
            some["teacher_sample_counts"][mask],
            mask=(some["teacher_sample_counts"] > 0).any(-1)[mask],
        ),
        "ce_teacher": cross_entropy(logits, torch.where(source == 0, labels, -100)[mask], spans),
        "ce_truth": cross_entropy(logits, torch.where(source == 1, labels, -100)[mask], spans),
        "length": length_aware_kd_loss(logits, mask, some, eos_ids=[EOS]).term,
        **early.terms,
    }
    loss = combined_kd_loss(hidden, weight, some, given)
    assert set(loss.terms) == set(expected)
    total = 0.0
    for name, term in expected.items():
        value = float(term.total.detach())
        assert float(loss.terms[name].total) == pytest.approx(value, rel=1e-7), name
        total += term_weights(given.kd)[name] * value / term.count
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-7)


def _early_options() -> Any:
    from kdfast.losses import EarlyToolOptions

    return EarlyToolOptions(ce_weight=1, prior_weight=1, preamble_weight=1, negative_weight=1, max_tokens=4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_split_into_micro_batches_it_gives_the_same_loss_and_gradient(fused: bool, size: int) -> None:
    given, some, (hidden, weight) = settings(fused=fused), double(batch()), model()
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


@pytest.mark.parametrize("fused", [True, False])
def test_no_gradient_outside_the_supervised_positions_or_where_no_call_is_due(fused: bool) -> None:
    some, (hidden, weight) = double(batch()), model()
    mask = supervised_mask(some)
    loss = combined_kd_loss(hidden, weight, some, settings(fused=fused))
    (gradient,) = gradients(loss.total, hidden)
    assert bool((gradient[~mask] == 0).all())
    assert bool((gradient[mask].abs().sum(-1) > 0).all())
    # the early-tool terms alone: rows that must not call stay untouched
    only = settings(
        fused=fused, kl_weight=0.0, ce_teacher_weight=0.0, sampled_kl_weight=0.0, ce_truth_weight=1e-300,
        length_weight=0.0, early_tool_negative_weight=0.0,
    )  # fmt: skip
    (gradient,) = gradients(combined_kd_loss(hidden, weight, some, only).total, hidden)
    due = some["tool_should_be_used"]
    assert float(gradient[~due].abs().max()) < 1e-200
    assert bool((gradient[due].abs().sum((1, 2)) > 1e-9).all())


@pytest.mark.parametrize("fused", [True, False])
def test_length_and_early_tool_gradients_stay_in_their_planned_positions(fused: bool) -> None:
    some, (hidden, weight) = double(batch()), model()
    off = {"kl_weight": 0.0, "ce_teacher_weight": 0.0, "sampled_kl_weight": 0.0, "ce_truth_weight": 1e-300}
    given = settings(fused=fused, **off, early_tool_preamble_weight=0.5, length_hinge=0.0)
    (gradient,) = gradients(combined_kd_loss(hidden, weight, some, given).total, hidden)
    early = early_tool_plan(
        some, max_tokens=4, parts=("early_tool_prior", "early_tool_preamble", "early_tool_negative")
    )
    planned = length_plan(some, [EOS]).gate | early.opening | (early.targets != -100)
    assert float(gradient[~planned].abs().max()) < 1e-200


@pytest.mark.parametrize("fused", [True, False])
def test_a_batch_without_anything_to_learn_costs_0_on_the_graph(fused: bool) -> None:
    some, (hidden, weight) = batch(), model()
    nothing = {name: torch.zeros_like(value) for name, value in some.items()} | {
        "labels": torch.full((6, T), -100),
        "teacher_prefix_ids": torch.full((6, 4), -100),
    }
    loss = combined_kd_loss(hidden, weight, nothing, settings(fused=fused))
    assert float(loss.total.detach()) == 0.0
    assert all(term.count == 0 for term in loss.terms.values())
    for gradient in gradients(loss.total, hidden, weight):
        assert gradient is not None
        assert not gradient.any()


@pytest.mark.parametrize("fused", [True, False])
def test_nan_names_the_term_and_the_row_or_is_left_out_and_counted(fused: bool) -> None:
    some, (hidden, weight) = double(batch()), model()
    broken = hidden.detach().clone()
    broken[3, int(some["response_start"][3])] = 1.7e308  # its logits are infinite
    broken.requires_grad_()
    with pytest.raises(FloatingPointError, match=r"kl: logits are not finite in 1 row\(s\): 103"):
        combined_kd_loss(broken, weight, some, settings(fused=fused))
    loss = combined_kd_loss(broken, weight, some, settings(fused=fused, on_nan="skip_row"))
    assert loss.terms["kl"].skipped == 1
    assert loss.terms["ce_truth"].skipped == 1
    assert loss.terms["ce_teacher"].skipped == 0
    clean = combined_kd_loss(hidden, weight, some, settings(fused=fused))
    assert loss.terms["kl"].count == clean.terms["kl"].count
    for gradient in gradients(loss.total, broken, weight):
        assert bool(gradient.isfinite().all())


def test_the_hinge_of_the_average_opens_and_closes_the_length_term() -> None:
    from dataclasses import replace

    some, (hidden, weight) = double(batch()), model()
    given = settings(length_aggregate="ema")
    closed = combined_kd_loss(hidden, weight, some, replace(given, hinge_open=False)).terms["length"]
    opened = combined_kd_loss(hidden, weight, some, replace(given, hinge_open=True))
    assert float(closed.total.detach()) == 0.0
    assert float(opened.terms["length"].total.detach()) == pytest.approx(float(opened.excess.sum()))


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
        combined_kd_loss(hidden, weight, some, settings(fused=False)).total.backward()
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
