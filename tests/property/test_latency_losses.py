"""What the latency losses keep for any batch, any gates and any logits."""

import math

import naive_latency
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_batches import EOS, OPENING, VOCAB, batch_of, part_of, student

from kdfast.losses.latency.early_tool_call_loss import (
    PARTS,
    EarlyToolOptions,
    early_tool_call_loss,
    early_tool_plan,
)
from kdfast.losses.latency.expected_length import expected_length
from kdfast.losses.latency.length_aware_kd_loss import (
    LengthOptions,
    length_aware_kd_loss,
    length_loss_from_log_odds,
)
from kdfast.losses.latency.length_plan import length_plan

pytestmark = pytest.mark.slow  # many examples of each law: 7 s

FORMS = ("log", "ratio", "quantile")
EARLY = EarlyToolOptions(
    ce_weight=1.0,
    prior_weight=1.0,
    preamble_weight=1.0,
    negative_weight=1.0,
    max_tokens=3,
    max_preamble_tokens=0.5,
)
WILD = (math.inf, -math.inf, 1e30, -1e30, 1e4, -1e4, 300.0, -300.0, 0.0, 1.0)
MANY = settings(max_examples=80, deadline=None)
FEW = settings(max_examples=30, deadline=None)


@st.composite
def gates(draw, odds, rows=4):
    """Answers of any length with any gates and log-odds, L's own position among them: a batch, a mask, numbers."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=rows))
    batch = batch_of(*["x" * (length - 1) + "." for length in lengths])
    stoppable = torch.zeros_like(batch["labels"], dtype=torch.bool)
    numbers = []
    for b, length in enumerate(lengths):
        chosen = draw(st.sets(st.integers(1, length))) | {length}
        numbers.append({i: draw(odds) for i in sorted(chosen)})
        stoppable[b, [i + 1 for i in chosen]] = True
    return batch, stoppable, numbers


def planned(example, dtype=torch.float64):
    batch, stoppable, numbers = example
    plan = length_plan(batch, [EOS], stoppable=stoppable)
    flat = [value for row in numbers for value in row.values()]
    return torch.tensor(flat, dtype=dtype, requires_grad=True), plan


MODERATE = st.floats(-12, 12)


@given(gates(MODERATE), st.integers(1, 40))
@MANY
def test_expected_length_is_the_sum_over_stopping_times(example, max_new_tokens):
    odds, plan = planned(example)
    slow = [
        naive_latency.expected_length(row, int(length), max_new_tokens)
        for row, length in zip(example[2], plan.lengths, strict=True)
    ]
    fast = expected_length(odds, plan, max_new_tokens)
    assert fast.tolist() == pytest.approx(slow, rel=1e-9)
    single = expected_length(odds.float(), plan, max_new_tokens)
    assert single.tolist() == pytest.approx(slow, rel=1e-5)
    limits = plan.lengths.clamp(min=max_new_tokens)
    assert bool(((fast >= 1) & (fast <= limits + 1e-9)).all())


@given(gates(st.floats(-8, 8)), st.sampled_from([0.0, 0.15, 1.0]), st.floats(0.1, 1.0))
@MANY
def test_quantile_is_the_chance_to_stop_in_time(example, hinge, wanted):
    odds, plan = planned(example)
    options = LengthOptions(form="quantile", hinge=hinge, quantile=wanted)
    out = length_loss_from_log_odds(odds, plan, options)
    slow = [
        naive_latency.excess(row, int(length), options)
        for row, length in zip(example[2], plan.lengths, strict=True)
    ]
    assert out.excess.tolist() == pytest.approx(slow, abs=1e-9)


@given(gates(st.floats(-30, 30)), st.integers(1, 4096))
@MANY
def test_expected_length_never_grows_with_the_chance_to_stop(example, max_new_tokens):
    odds, plan = planned(example)
    value = expected_length(odds, plan, max_new_tokens)
    (grad,) = torch.autograd.grad(value.sum(), odds)
    assert bool((grad <= 1e-9).all())
    for index in range(len(odds)):
        raised = odds.detach().clone()
        raised[index] += 0.5
        assert bool((expected_length(raised, plan, max_new_tokens) <= value * (1 + 1e-12)).all())


@given(gates(st.floats(-5, 5), rows=1), st.integers(10, 60))
@FEW
def test_expected_length_falls_strictly_where_the_answer_may_go_on(example, max_new_tokens):
    odds, plan = planned(example)
    (grad,) = torch.autograd.grad(expected_length(odds, plan, max_new_tokens).sum(), odds)
    assert bool((grad < 0).all())


@given(
    gates(st.floats(-2e4, 2e4) | MODERATE),
    st.sampled_from([torch.float64, torch.float32]),
    st.integers(1, 4096),
)
@MANY
def test_gradient_of_log_is_at_most_1_a_position(example, dtype, max_new_tokens):
    odds, plan = planned(example, dtype)
    options = LengthOptions(hinge=0.0, max_new_tokens=max_new_tokens, hinge_open=True)
    out = length_loss_from_log_odds(odds, plan, options)
    out.term.total.backward()
    assert bool(odds.grad.isfinite().all())
    assert float(odds.grad.abs().max()) <= 1 + 1e-5


@given(gates(st.floats(-2e4, -13)))
@FEW
def test_quantile_pulls_on_every_cold_start(example):
    odds, plan = planned(example, torch.float32)
    length_loss_from_log_odds(odds, plan, LengthOptions(form="quantile")).term.total.backward()
    pull = plan.layout.spread(odds.grad, 0.0).sum(1)
    assert pull.tolist() == pytest.approx([-1.0] * plan.count, abs=1e-3)


# ------------------------------------------------------------------------------------------------ whole batches


@st.composite
def batches(draw, least=0):
    """Rows of any answer, flags and prefixes, right or wrong."""
    answers = draw(st.lists(st.text("xc.", max_size=8), min_size=least, max_size=5))
    answers = [answer.replace(".", "x") + draw(st.sampled_from([".", ".", ""])) for answer in answers]
    flags = st.lists(st.booleans(), min_size=len(answers), max_size=len(answers))
    given_prefixes = [draw(st.lists(st.integers(5, 10), max_size=4)) for _ in answers]
    return batch_of(
        *answers,
        should=draw(flags),
        present=draw(flags),
        prefixes=draw(st.sampled_from([None, given_prefixes])),
        prompt=draw(st.integers(0, 3)),
        length=draw(st.sampled_from([None, 5, 14])),
    )


def length_term(full, batch, options, **more):
    mask = batch["response_mask"]
    return length_aware_kd_loss(full[mask], mask, batch, eos_ids=[EOS], options=options, **more)


def early_terms(full, batch):
    mask = batch["response_mask"]
    return early_tool_call_loss(full[mask], mask, batch, opening_ids=OPENING, options=EARLY)


@given(batches())
@MANY
def test_plans_equal_the_naive_twins(batch):
    plan, rows = length_plan(batch, [EOS]), naive_latency.length_rows(batch, [EOS])
    first = batch["response_start"].tolist()
    gate = [
        [start - 2 + i for i in row] if isinstance(row, list) else []
        for row, start in zip(rows, first, strict=True)
    ]
    assert [row.nonzero()[:, 0].tolist() for row in plan.gate] == gate
    assert dict(plan.skipped) == {reason: rows.count(reason) for reason in ("cut", "exempt")}
    assert plan.count + sum(plan.skipped.values()) == len(rows)

    early, rows = early_tool_plan(batch, max_tokens=3, parts=PARTS), naive_latency.early_rows(batch, 3)
    for b, row in enumerate(rows):
        places = (early.targets[b] != -100).nonzero()[:, 0].tolist()
        assert {t: int(early.targets[b, t]) for t in places} == row["targets"]
        for name in ("prior", "preamble", "negative"):
            assert getattr(early, name)[b].nonzero()[:, 0].tolist() == row[name]
    assert early.counts["early_tool_ce"] == sum(len(row["targets"]) for row in rows)
    acting = sum(bool(row["targets"] or row["prior"]) for row in rows)
    assert acting + sum(early.skipped.values()) == len(rows)


@given(batches(), st.sampled_from(FORMS), st.integers(0, 99))
@FEW
def test_values_equal_the_naive_twins(batch, form, seed):
    full = student(batch, seed)
    options = LengthOptions(form=form, max_new_tokens=7)
    total, count = naive_latency.length_loss(full, batch, [EOS], options)
    term = length_term(full, batch, options).term
    assert (term.total.item(), term.count) == (pytest.approx(total, abs=1e-9), count)
    slow = naive_latency.early_parts(full, batch, OPENING, EARLY)
    for part, found in early_terms(full, batch).terms.items():
        assert (found.total.item(), found.count) == (pytest.approx(slow[part][0], abs=1e-9), slow[part][1])


@pytest.mark.slow
@given(batches(least=2), st.data(), st.sampled_from(FORMS), st.sampled_from([None, True]))
@FEW
def test_micro_batches_add_up(batch, data, form, hinge_open):
    full = student(batch)
    cut = data.draw(st.integers(0, len(full)))
    options = LengthOptions(form=form, max_new_tokens=7, hinge_open=hinge_open)
    order = torch.tensor(data.draw(st.permutations(range(len(full)))))

    def terms(rows):
        own, part = full[rows], part_of(batch, rows)
        early = early_terms(own, part)
        return [length_term(own, part, options).term, *early.terms.values(), *early.diagnostics.values()]

    for whole, one, two in zip(
        terms(torch.arange(len(full))), terms(order[:cut]), terms(order[cut:]), strict=True
    ):
        assert whole.count == one.count + two.count
        assert whole.total.item() == pytest.approx((one.total + two.total).item(), abs=1e-9)
        if whole.total.requires_grad:
            expected = torch.autograd.grad(whole.total, full, retain_graph=True)[0]
            got = torch.autograd.grad(one.total + two.total, full, retain_graph=True)[0]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@given(batches(), st.sampled_from(FORMS))
@FEW
def test_padding_does_not_matter(batch, form):
    full = student(batch)
    pads = {"labels": -100, "response_mask": False, "tool_call_mask": False}
    if any(
        int(start + length) > full.shape[1]
        for start, length in zip(batch["response_start"], batch["response_length"], strict=True)
    ):
        return  # cut rows end with the batch
    wider = batch | {
        name: torch.nn.functional.pad(batch[name], (0, 3), value=pad) for name, pad in pads.items()
    }
    padded = torch.nn.functional.pad(full, (0, 0, 0, 3), value=math.nan)
    options = LengthOptions(form=form, max_new_tokens=7)
    assert (
        length_term(padded, wider, options).term.total.item()
        == length_term(full, batch, options).term.total.item()
    )
    for one, other in zip(
        early_terms(padded, wider).terms.values(), early_terms(full, batch).terms.values(), strict=True
    ):
        assert (one.total.item(), one.count) == (other.total.item(), other.count)


@pytest.mark.slow
@given(batches(least=1), st.data(), st.sampled_from(FORMS), st.sampled_from([None, True, False]))
@MANY
def test_any_logits_give_finite_values_and_gradients(batch, data, form, hinge_open):
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    size = (*batch["labels"].shape, VOCAB)
    seed = data.draw(st.integers(0, 999))
    pick = torch.randint(len(WILD), size, generator=torch.Generator().manual_seed(seed))
    full = torch.tensor(WILD)[pick]
    if data.draw(st.booleans()):  # one-hot rows
        full = torch.full(size, -math.inf).scatter_(2, pick[..., :1] % VOCAB, math.inf)
    full = full.to(dtype).requires_grad_()
    options = LengthOptions(
        form=form, max_new_tokens=data.draw(st.sampled_from([1, 7, 4096])), hinge_open=hinge_open
    )
    out = length_term(full, batch, options)
    early = EarlyToolOptions(ce_weight=0.0, prior_weight=1.0, preamble_weight=1.0, negative_weight=1.0)
    mask = batch["response_mask"]
    parts = early_tool_call_loss(full[mask], mask, batch, opening_ids=OPENING, options=early)
    totals = [out.term.total, parts.total, *(term.total for term in parts.terms.values())]
    assert all(bool(total.isfinite()) for total in totals)
    assert bool(out.excess.isfinite().all() and out.relative_excess.isfinite().all())
    torch.stack(totals).sum().backward()
    assert bool(full.grad.isfinite().all())
