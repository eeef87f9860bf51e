import math

import naive_latency
import pytest
import torch
from latency_batches import OPENING, answer_ids, batch_of, part_of, student

from kdfast.errors import DataError
from kdfast.losses.latency.early_tool_call_loss import (
    PARTS,
    EarlyToolOptions,
    early_tool_call_loss,
    early_tool_from_log_odds,
    early_tool_plan,
)
from kdfast.losses.latency.log_odds import linear_log_odds

ALL = EarlyToolOptions(ce_weight=1.0, prior_weight=0.5, preamble_weight=0.25, negative_weight=0.125)
ANSWERS = ("xxccc.", "ccccc.", "xx.", "xxx.", "xcc.", "xxxxcxc.")
SHOULD = [True, True, True, False, False, True]


def loss(full, batch, options=ALL, **more):
    mask = batch["response_mask"]
    return early_tool_call_loss(full[mask], mask, batch, opening_ids=OPENING, options=options, **more)


def targets_of(answer, prefix, max_tokens=25, **more):
    """Targets of one row by answer token 1..L."""
    plan = early_tool_plan(batch_of(answer, should=[True], prefixes=[prefix], **more), max_tokens=max_tokens)
    targets = plan.targets[0]
    return {t - 1: int(targets[t]) for t in (targets != -100).nonzero()[:, 0].tolist()}


# ------------------------------------------------------------------------------------------------ the plan


def test_targets_are_the_first_ids_of_the_call_where_it_begins():
    assert targets_of("xxccc.", [6, 7, 8]) == {3: 6, 4: 7, 5: 8}
    assert targets_of("ccc.", [6, 7, 8]) == {1: 6, 2: 7, 3: 8}
    assert targets_of("ccc.", [6, 7, 8], max_tokens=2) == {1: 6, 2: 7}


def test_a_prefix_counts_only_as_far_as_the_answer_agrees_with_it():
    assert targets_of("xccc.", [9, 7, 8]) == {2: 9}  # what is read after t0 is no 9
    assert targets_of("xccc.", [6, 9, 8]) == {2: 6, 3: 9}
    assert targets_of("xx.", [6, 7, 8]) == {1: 6}  # the answer has no call: t0 is its start
    assert targets_of("xx.", answer_ids("xx.")) == dict(enumerate(answer_ids("xx."), 1))


def test_targets_end_with_the_answer_and_with_the_batch():
    prefix = [*answer_ids("cc."), 5, 5]
    assert targets_of("cc.", prefix) == {1: 6, 2: 7, 3: 2}
    assert targets_of("cc.", prefix, length=9) == {1: 6, 2: 7, 3: 2}
    assert targets_of("cccc.", [6, 7, 8, 9], length=4) == {1: 6, 2: 7}


def test_which_row_is_in_which_part():
    batch = batch_of(*ANSWERS, should=SHOULD)
    plan = early_tool_plan(batch, parts=PARTS)
    rows = {
        name: getattr(plan, name).any(1).nonzero()[:, 0].tolist()
        for name in ("prior", "preamble", "negative")
    }
    assert rows == {"prior": [2], "preamble": [0, 5], "negative": [3, 4]}
    assert plan.prior[2].nonzero().tolist() == [[2]]
    assert plan.preamble[0].nonzero().tolist() == [[2], [3]]
    assert plan.preamble[5].nonzero().tolist() == [[2], [3], [4], [5]]  # before the first call only
    assert plan.negative[[3, 4]].nonzero().tolist() == [[0, 2], [1, 2]]
    assert dict(plan.counts) == dict(zip(PARTS, (3 + 5 + 1, 1, 2, 2), strict=True))
    assert dict(plan.rows) == {"all": 6, "should_use": 4, "target_available": 3}
    assert dict(plan.skipped) == {"not_needed": 2, "no_flag": 0, "no_response": 0}
    assert torch.equal(plan.opening, plan.prior | plan.preamble | plan.negative)


def test_opening_holds_only_the_parts_asked_for():
    batch = batch_of(*ANSWERS, should=SHOULD)
    plan = early_tool_plan(batch)
    assert plan.parts == ("early_tool_ce", "early_tool_prior")
    assert torch.equal(plan.opening, plan.prior)
    assert plan.preamble.any()  # known, not wanted
    assert set(plan.counts) == set(plan.parts)
    assert not early_tool_plan(batch, parts=["early_tool_ce"]).opening.any()
    plan = early_tool_plan(batch, parts=["early_tool_negative"])
    assert torch.equal(plan.opening, plan.negative)
    with pytest.raises(ValueError, match=r"parts must be some of early_tool_ce, .*: early_tool_kl"):
        early_tool_plan(batch, parts=["early_tool_kl"])


def test_a_call_whose_prefix_is_withheld_has_its_prior_where_the_call_begins():
    plan = early_tool_plan(batch_of("xxcc.", prefixes=[[]]))
    assert plan.prior[0].nonzero().tolist() == [[4]]
    assert (plan.targets == -100).all()


def test_optional_fields_may_be_absent():
    batch = batch_of("xxcc.", "xx.", should=[True, True])
    without_prefix = {name: value for name, value in batch.items() if name != "teacher_prefix_ids"}
    assert early_tool_plan(without_prefix).prior.nonzero().tolist() == [[0, 4], [1, 2]]
    without_calls = {name: value for name, value in batch.items() if name != "tool_call_mask"}
    plan = early_tool_plan(without_calls, parts=PARTS)
    assert (plan.targets != -100).nonzero().tolist() == [[0, 2]]
    assert not plan.preamble.any()
    without_flag = {name: value for name, value in batch.items() if name != "tool_should_be_used"}
    plan = early_tool_plan(without_flag, parts=PARTS)
    assert not plan.opening.any()
    assert dict(plan.skipped) == {"not_needed": 0, "no_flag": 2, "no_response": 0}


def test_calls_of_earlier_turns_do_not_count():
    batch = batch_of("xxcc.", prompt=6)
    batch["tool_call_mask"][0, 1:3] = True
    assert (early_tool_plan(batch).targets != -100).nonzero().tolist() == [[0, 7], [0, 8]]


def test_a_row_without_a_position_to_learn_from_is_skipped():
    plan = early_tool_plan(batch_of("cc.", "", "cc.", should=[True] * 3, prompt=5, length=4), parts=PARTS)
    assert plan.skipped["no_response"] == 3
    assert (plan.targets == -100).all()
    assert not plan.opening.any()
    # nothing stands before the answer: its first token is nobody's prediction
    assert early_tool_plan(batch_of("cc.", prompt=0)).skipped["no_response"] == 0
    assert early_tool_plan(batch_of("xx.", prompt=0, should=[True])).skipped["no_response"] == 1


def test_bad_arguments_are_refused():
    batch = batch_of("cc.")
    with pytest.raises(ValueError, match="max_tokens must be at least 1: 0"):
        early_tool_plan(batch, max_tokens=0)
    del batch["labels"]
    with pytest.raises(ValueError, match="needs: labels"):
        early_tool_plan(batch)


# ------------------------------------------------------------------------------------------------ value and gradient


@pytest.mark.parametrize("limit", [0.0, 1.5])
def test_every_part_equals_the_naive_twin(limit):
    batch = batch_of(*ANSWERS, should=SHOULD)
    full = student(batch)
    options = EarlyToolOptions(
        ce_weight=1.0,
        prior_weight=0.5,
        preamble_weight=0.25,
        negative_weight=0.125,
        max_tokens=4,
        max_preamble_tokens=limit,
        preamble_slope=1.3,
        ramp=0.7,
    )
    out = loss(full, batch, options)
    slow = naive_latency.early_parts(full, batch, OPENING, options)
    for part, (total, count) in slow.items():
        assert (out.terms[part].total.item(), out.terms[part].count) == (
            pytest.approx(total, abs=1e-11),
            count,
        )
        assert count > 0
    means = [options.weights[part] * total / count for part, (total, count) in slow.items()]
    assert out.total.item() == pytest.approx(0.7 * sum(means))


def test_preamble_by_hand():
    # 2 tokens of text, Q = 1/3 at each: 2/3 + 4/9 tokens are to be expected before the call
    plan = early_tool_plan(batch_of("xxcc."), parts=["early_tool_preamble"])
    a = torch.full((2,), math.log(0.5), dtype=torch.float64, requires_grad=True)
    for limit, slope, expected in ((0.0, 1.0, 10 / 9), (1.0, 3.0, 1 / 3), (1.2, 1.0, 0.0)):
        options = EarlyToolOptions(max_preamble_tokens=limit, preamble_slope=slope)
        term = early_tool_from_log_odds(a, plan, options)["early_tool_preamble"]
        assert (term.total.item(), term.count) == (pytest.approx(expected), 1)
    assert torch.equal(torch.autograd.grad(term.total, a)[0], torch.zeros_like(a))


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_gradient_by_gradcheck_and_only_where_planned(part):
    batch = batch_of(*ANSWERS, should=SHOULD)
    weights = dict.fromkeys(("ce_weight", "prior_weight"), 0.0) | {
        part.removeprefix("early_tool_") + "_weight": 1.0
    }
    options = EarlyToolOptions(**weights, max_tokens=3)
    full, mask = student(batch), batch["response_mask"]

    def total(x):
        return early_tool_call_loss(x, mask, batch, opening_ids=OPENING, options=options).terms[part].total

    assert torch.autograd.gradcheck(total, full.detach()[mask].requires_grad_())
    plan = early_tool_plan(batch, max_tokens=3, parts=[part])
    loss(full, batch, options).total.backward()
    planned = plan.targets != -100 if part == "early_tool_ce" else plan.opening
    assert torch.equal(full.grad.abs().sum(2) > 0, planned)


def test_rows_that_must_not_call_have_no_gradient_by_default():
    batch = batch_of(*ANSWERS, should=SHOULD)
    full = student(batch)
    loss(full, batch, EarlyToolOptions(preamble_weight=1.0)).total.backward()
    reached = full.grad.abs().sum((1, 2)) > 0
    assert reached.tolist() == SHOULD


def test_no_weight_no_part():
    batch = batch_of(*ANSWERS, should=SHOULD)
    full = student(batch)
    out = loss(full, batch, EarlyToolOptions(ce_weight=0.0, prior_weight=0.0))
    assert dict(out.terms) == {}
    assert out.total.item() == 0.0
    out.total.backward()
    assert torch.equal(full.grad, torch.zeros_like(full))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_maths_is_fp32_or_fp64_for_any_input(dtype):
    batch = batch_of(*ANSWERS, should=SHOULD)
    full = student(batch, dtype=dtype)
    out, exact = loss(full, batch), loss(full.detach().double(), batch)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    for part, term in out.terms.items():
        assert term.total.dtype == wanted
        assert term.total.item() == pytest.approx(exact.terms[part].total.item(), rel=1e-5)
    out.total.backward()
    assert (out.total.dtype, full.grad.dtype) == (wanted, dtype)


def test_nothing_to_count_is_exactly_0_on_the_graph():
    for batch in (batch_of("", should=[True]), part_of(batch_of("x."), slice(0, 0))):
        full = student(batch)
        out = loss(full, batch)
        assert {part: (term.total.item(), term.count) for part, term in out.terms.items()} == dict.fromkeys(
            PARTS, (0.0, 0)
        )
        out.total.backward()
        assert torch.equal(full.grad, torch.zeros_like(full))


def test_diagnostics_are_sums_and_counts():
    batch = batch_of(*ANSWERS, should=SHOULD)
    full = student(batch)
    out = loss(full, batch)
    found = {name: (term.total.item(), term.count) for name, term in out.diagnostics.items()}
    prior = out.terms["early_tool_prior"]
    assert found == {
        "frac_should_use": (4.0, 6),
        "frac_target_available": (3.0, 4),
        "mean_json_prior_nll0": (prior.total.item(), 1),
    }
    assert not any(term.total.requires_grad for term in out.diagnostics.values())
    assert set(loss(full, batch, EarlyToolOptions(prior_weight=0.0)).diagnostics) == set(list(found)[:2])


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("place", "row", "what"),
    [((0, 5), 0, "logits"), ((2, 2), 2, "log-odds"), ((5, 4), 5, "log-odds"), ((3, 2), 3, "log-odds")],
    ids=["target", "prior", "preamble", "negative"],
)
def test_nan_names_the_row_or_skips_it(place, row, what):
    for rows in (None, [90, 91, 92, 93, 94, 95]):
        batch = batch_of(*ANSWERS, should=SHOULD, rows=rows)
        full = student(batch).detach()
        full[place] = math.nan
        full.requires_grad_()
        name = rows[row] if rows else row
        with pytest.raises(FloatingPointError, match=rf"{what} are not finite in 1 row\(s\): {name}$"):
            loss(full, batch)
        out, clean = loss(full, batch, nan="skip_row"), loss(student(batch), batch)
        assert sum(term.skipped for term in out.terms.values()) == 1
        assert {part: term.count for part, term in out.terms.items()} == {
            part: term.count for part, term in clean.terms.items()
        }
        out.total.backward()
        assert bool(full.grad.isfinite().all())
        assert bool((full.grad[place] == 0).all())
        for part, term in out.terms.items():
            if not term.skipped:
                assert term.total.item() == clean.terms[part].total.item()
        nll = out.diagnostics["mean_json_prior_nll0"]
        assert nll.count == (0 if row == 2 else 1)


def test_a_prefix_id_outside_the_vocabulary_is_refused():
    batch = batch_of("cc.", prefixes=[[99]])
    with pytest.raises(DataError, match="labels must be"):
        loss(student(batch), batch)


def test_masks_sizes_and_ids_that_do_not_match_are_refused():
    batch = batch_of(*ANSWERS, should=SHOULD)
    full, mask = student(batch), batch["response_mask"].clone()
    with pytest.raises(ValueError, match=r"one row for each position of mask"):
        early_tool_call_loss(full[mask][1:], mask, batch, opening_ids=OPENING)
    for hole, name in (((0, 4), "target"), ((2, 2), "opening")):
        holed = mask.clone()
        holed[hole] = False
        with pytest.raises(
            ValueError, match=rf"mask must hold every {name} position, row\(s\): \[{hole[0]}\]"
        ):
            early_tool_call_loss(full[holed], holed, batch, opening_ids=OPENING)
    for ids in ((), (16,), range(16)):
        with pytest.raises(ValueError, match="ids must"):
            early_tool_call_loss(full[mask], mask, batch, opening_ids=ids)
    with pytest.raises(ValueError, match=r"one entry an opening position \(1\): \[2\]"):
        early_tool_from_log_odds(torch.zeros(2), early_tool_plan(batch))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ce_weight", -1.0),
        ("prior_weight", math.nan),
        ("preamble_weight", math.inf),
        ("negative_weight", -0.1),
        ("max_tokens", 0),
        ("max_preamble_tokens", -1.0),
        ("preamble_slope", -1.0),
        ("ramp", -0.5),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        EarlyToolOptions(**{option: value})


# ------------------------------------------------------------------------------------------------ from hidden states


def test_fused_log_odds_give_the_same_parts_and_gradient():
    batch = batch_of(*ANSWERS, should=SHOULD)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(
        *batch["labels"].shape, 5, generator=generator, dtype=torch.float64, requires_grad=True
    )
    weight = torch.randn(16, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    plan = early_tool_plan(batch, parts=PARTS)
    plain = loss(hidden @ weight.T, batch).terms
    fused = early_tool_from_log_odds(
        linear_log_odds(hidden[plan.opening], weight, OPENING, chunk_rows=3), plan
    )
    for part, term in fused.items():
        assert term.total.item() == pytest.approx(plain[part].total.item(), rel=1e-12)
        expected = torch.autograd.grad(plain[part].total, (hidden, weight), retain_graph=True)
        got = torch.autograd.grad(term.total, (hidden, weight), retain_graph=True)
        torch.testing.assert_close(got, expected)
