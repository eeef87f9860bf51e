import math
from dataclasses import replace

import naive_latency
import pytest
import torch
from latency_batches import EOS, batch_of, part_of, student

from kdfast.losses.latency.expected_length import expected_length
from kdfast.losses.latency.length_aware_kd_loss import (
    LengthOptions,
    length_aware_kd_loss,
    length_excess,
    length_loss_from_log_odds,
)
from kdfast.losses.latency.length_plan import length_plan
from kdfast.losses.latency.log_odds import linear_log_odds

FORMS = ("log", "ratio", "quantile")
ANSWERS = ("xxx.", "xccxccxx.", "ccc.", "xx", "c.", "xxxxxxxxx.")


def everything(max_new_tokens=20, **more):
    return [LengthOptions(form=form, max_new_tokens=max_new_tokens, **more) for form in FORMS]


def loss(full, batch, options, **more):
    mask = batch["response_mask"]
    return length_aware_kd_loss(full[mask], mask, batch, eos_ids=[EOS], options=options, **more)


def open_at(answer, **more):
    """Answer tokens 1..L at which the plan lets a single answer end."""
    plan = length_plan(batch_of(answer), [EOS], **more)
    return (
        plan.gate[0].nonzero()[:, 0] - 1
    ).tolist()  # the prompt has 3 tokens: token i is predicted at i + 1


def odds_of(answer, values, **more):
    plan = length_plan(batch_of(answer), [EOS], **more)
    return torch.tensor(values, dtype=torch.float64, requires_grad=True), plan


# ------------------------------------------------------------------------------------------------ the plan


def test_gate_opens_at_the_end_and_behind_the_last_call_only():
    assert open_at("xxx.") == [4]
    assert open_at("ccc.") == [4]
    assert open_at("cccxx.") == [4, 5, 6]
    assert open_at("xccxccxx.") == [7, 8, 9]  # not between the calls
    assert open_at("xx") == []


def test_gate_without_tool_calls_in_the_batch_and_given_by_the_caller():
    batch = batch_of("cccxx.")
    del batch["tool_call_mask"]
    assert length_plan(batch, [EOS]).gate[0].nonzero().tolist() == [[7]]
    stoppable = torch.zeros(1, 9, dtype=torch.bool)
    stoppable[0, [0, 3, 8]] = True  # before, inside and behind the answer
    assert open_at("cccxx.", stoppable=stoppable) == [2, 6]


def test_a_call_of_an_earlier_turn_does_not_count():
    batch = batch_of("xxx.", prompt=6)
    batch["tool_call_mask"][0, 1:3] = True
    assert length_plan(batch, [EOS]).gate[0].nonzero().tolist() == [[8]]


def test_rows_are_left_out_with_their_reason():
    answers = ("x.", "xx", "c.", "c.", "x.", "")
    batch = batch_of(*answers, present=[True, True, False, True, False, True])
    plan = length_plan(batch, [EOS])
    # only a row that should call and lacks required fields is exempt: row 4 should not call
    assert plan.counted.tolist() == [True, False, False, True, True, False]
    assert dict(plan.skipped) == {"cut": 2, "exempt": 1}
    assert plan.count == 3
    assert not plan.gate[[1, 2, 5]].any()
    assert plan.lengths.tolist() == [2, 2, 2, 2, 2, 0]
    assert plan.counted_lengths.tolist() == [2, 2, 2]
    given = length_plan(batch, [EOS], exempt=torch.tensor([1, 1, 0, 0, 0, 0]))
    assert given.counted.tolist() == [False, False, True, True, True, False]
    assert dict(given.skipped) == {"cut": 2, "exempt": 1}


def test_exempt_needs_both_flags():
    for field in ("tool_should_be_used", "required_fields_present"):
        batch = batch_of("c.", present=[False])
        del batch[field]
        assert length_plan(batch, [EOS]).skipped["exempt"] == 0


def test_an_answer_that_does_not_fit_into_the_batch_is_cut():
    batch = {
        name: value[:, :5] if value.dim() == 2 else value for name, value in batch_of("xxx.", "x.").items()
    }
    assert length_plan(batch, [EOS]).counted.tolist() == [False, True]
    assert length_plan(batch_of("x.", prompt=0), [EOS]).gate.tolist() == [[True, False]]


def test_several_eos_ids():
    batch = batch_of("xx.", "xxx")
    last = int(batch["labels"][1, 4])
    assert length_plan(batch, [EOS, last]).counted.tolist() == [True, True]
    assert length_plan(batch, [last]).counted.tolist() == [False, True]


def test_bad_plans_are_refused():
    batch = batch_of("x.", "x.")
    with pytest.raises(ValueError, match="ids must not be empty"):
        length_plan(batch, [])
    with pytest.raises(ValueError, match=r"exempt must be \[2\]: \[1\]"):
        length_plan(batch, [EOS], exempt=torch.tensor([True]))
    with pytest.raises(ValueError, match=r"stoppable must be \[2, 5\]: \[5\]"):
        length_plan(batch, [EOS], stoppable=torch.ones(5))
    del batch["response_length"]
    with pytest.raises(ValueError, match="needs: response_length"):
        length_plan(batch, [EOS])


# ------------------------------------------------------------------------------------------------ expected length


@pytest.mark.parametrize(
    ("answer", "p", "max_new_tokens", "expected"),
    [
        ("xxx.", [1.0], 256, 4.0),
        ("xxx.", [0.5], 4, 4.0),  # no token behind L
        ("xxx.", [0.5], 2, 4.0),  # L beyond the limit: R = 0, not negative
        ("xxx.", [0.5], 6, 4.75),  # 4 + 1/2 + 1/4
        ("xxx.", [0.0], 256, 256.0),  # never stops: runs to the limit
        ("xxx.", [0.25], 10**6, 7.0),  # 4 + 3/4 / (1/4): the whole geometric tail
        ("ccx.", [0.5, 0.5], 4, 3.5),  # 3, then 1/2
        ("ccx.", [0.5, 1.0], 256, 3.5),
        ("ccx.", [1.0, 0.0], 256, 3.0),  # ends before the teacher does
    ],
)
def test_expected_length_by_hand(answer, p, max_new_tokens, expected):
    odds, plan = odds_of(answer, [math.log(max(x, 1e-300) / max(1 - x, 1e-300)) for x in p])
    assert expected_length(odds, plan, max_new_tokens).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_tail_is_smooth_where_its_limit_takes_over(dtype):
    for d in (-59.9, -60.1):
        odds = torch.tensor([d], dtype=dtype, requires_grad=True)
        value = expected_length(odds, odds_of("xxx.", [0.0])[1], 4096)
        value.backward()
        assert value.item() == pytest.approx(4096, rel=1e-6)
        assert abs(odds.grad.item()) < 1e-2
    assert not expected_length(odds, odds_of("xxx.", [0.0])[1], 4096).isnan().any()


def test_4096_tokens_in_fp32():
    stoppable = torch.ones(1, 4097, dtype=torch.bool)
    batch = batch_of("x" * 4095 + ".", prompt=1)
    plan = length_plan(batch, [EOS], stoppable=stoppable)
    odds = torch.full((4096,), -7.0, requires_grad=True)
    value = expected_length(odds, plan, 8192)
    p = naive_latency.probability(-7.0)
    assert value.item() == pytest.approx((1 - (1 - p) ** 8192) / p, rel=1e-5)
    value.backward()
    assert bool((odds.grad < 0).all())


# ------------------------------------------------------------------------------------------------ value and gradient


@pytest.mark.parametrize("hinge_open", [None, True, False])
@pytest.mark.parametrize("form", FORMS)
def test_value_equals_the_naive_twin(form, hinge_open):
    batch = batch_of(*ANSWERS, present=[True, True, True, True, False, True])
    full = student(batch)
    options = LengthOptions(form=form, max_new_tokens=12, slope=1.7, hinge=0.25, hinge_open=hinge_open)
    out = loss(full, batch, options)
    total, count = naive_latency.length_loss(full, batch, [EOS], options)
    assert (out.term.total.item(), out.term.count) == (pytest.approx(total, abs=1e-10), count)
    assert count == 4
    assert (total == 0) == (hinge_open is False)


@pytest.mark.slow
@pytest.mark.parametrize("options", everything(hinge=0.0), ids=FORMS)
def test_gradient_by_gradcheck(options):
    batch = batch_of(*ANSWERS)
    mask = batch["response_mask"]
    # a student that seldom ends: every hinge is open
    full = (student(batch).detach()[mask] - 3.0 * torch.eye(16)[EOS]).requires_grad_()

    def total(x):
        return length_aware_kd_loss(x, mask, batch, eos_ids=[EOS], options=options).term.total

    assert bool((loss(student(batch), batch, options).excess != 0).all())
    assert torch.autograd.gradcheck(total, full)


@pytest.mark.parametrize("options", everything(), ids=FORMS)
def test_only_the_gate_has_a_gradient(options):
    batch = batch_of(*ANSWERS, present=[True, True, False, True, True, True])
    full = student(batch)
    plan = length_plan(batch, [EOS])
    loss(full, batch, replace(options, hinge_open=True)).term.total.backward()
    reached = full.grad.abs().sum(2) > 0
    assert torch.equal(reached, plan.gate)
    assert not reached[2].any()  # exempt
    assert not reached[3].any()  # cut


@pytest.mark.parametrize("options", everything(), ids=FORMS)
def test_a_closed_hinge_is_exactly_0_without_gradient(options):
    batch = batch_of(*ANSWERS)
    full = student(batch)
    out = loss(full, batch, replace(options, hinge_open=False))
    assert (out.term.total.item(), out.term.count) == (0.0, 5)
    out.term.total.backward()
    assert torch.equal(full.grad, torch.zeros_like(full))
    assert len(out.excess) == 5  # what the moving average needs is still there


def test_an_open_hinge_counts_rows_below_it_with_their_sign():
    odds, plan = odds_of("xxx.", [40.0])
    options = LengthOptions(form="log", hinge_open=True)
    out = length_loss_from_log_odds(odds, plan, options)
    assert out.term.total.item() == pytest.approx(-math.log(1.15))


def test_quantile_by_hand_and_its_pull_on_a_cold_start():
    odds, plan = odds_of("xxx.", [-40.0])  # log p = -40
    options = LengthOptions(form="quantile", hinge=0.5)
    out = length_loss_from_log_odds(odds, plan, options)
    # 1 + floor(0.5 * 4) = 3 chances of e^-40
    assert out.term.total.item() == pytest.approx(math.log(0.9) + 40 - math.log(3))
    out.term.total.backward()
    assert odds.grad.item() == pytest.approx(-1.0)
    for form in ("log", "ratio"):  # the others see nothing there
        odds.grad = None
        length_loss_from_log_odds(odds, plan, LengthOptions(form=form)).term.total.backward()
        assert abs(odds.grad.item()) < 1e-12


@pytest.mark.parametrize("d", [-2e4, -100.0, -61.0])
def test_quantile_reaches_as_far_as_the_clamp_in_fp32(d):
    odds = torch.tensor([d, d], requires_grad=True)
    plan = length_plan(batch_of("ccx."), [EOS])
    out = length_loss_from_log_odds(odds, plan, LengthOptions(form="quantile", hinge=0.5))
    # one chance behind the call, and 1 + floor(0.5 * 4) from the end on
    assert out.term.total.item() == pytest.approx(math.log(0.9) - d - math.log(4), rel=1e-6)
    out.term.total.backward()
    assert odds.grad.tolist() == pytest.approx([-0.25, -0.75], rel=2e-3)  # fp32 holds 2e4 + log 3 to 1e-3


def test_a_fraction_of_the_length_is_not_lost_to_rounding():
    # floor(0.29 * 100) is 29, though 0.29 * 100 is 28.999999999999996
    odds, plan = odds_of("x" * 99 + ".", [-40.0])
    out = length_loss_from_log_odds(odds, plan, LengthOptions(form="quantile", hinge=0.29))
    assert out.term.total.item() == pytest.approx(math.log(0.9) + 40 - math.log(30))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", everything(), ids=FORMS)
def test_maths_is_fp32_or_fp64_for_any_input(options, dtype):
    batch = batch_of(*ANSWERS)
    full = student(batch, dtype=dtype)
    out = loss(full, batch, options)
    exact = loss(full.detach().double(), batch, options)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert (out.term.total.dtype, out.excess.dtype) == (wanted, wanted)
    assert out.term.total.item() == pytest.approx(exact.term.total.item(), rel=1e-5)
    out.term.total.backward()
    assert full.grad.dtype == dtype


@pytest.mark.parametrize("options", everything(), ids=FORMS)
def test_nothing_to_count_is_exactly_0_on_the_graph(options):
    for batch in (
        batch_of("xx", "xxx"),
        batch_of("c.", present=[False]),
        part_of(batch_of("x."), slice(0, 0)),
    ):
        full = student(batch)
        out = loss(full, batch, options)
        assert (out.term.total.item(), out.term.count, len(out.excess)) == (0.0, 0, 0)
        out.term.total.backward()
        assert torch.equal(full.grad, torch.zeros_like(full))


def test_diagnostics_tell_penalised_rows():
    batch = batch_of("x.", "xxx.")
    plan = length_plan(batch, [EOS])
    out = length_loss_from_log_odds(torch.tensor([0.0, 30.0]), plan, LengthOptions(max_new_tokens=4))
    assert out.relative_excess.tolist() == pytest.approx([0.375, 0.0])
    assert out.excess.tolist() == pytest.approx([math.log(1.375 / 1.15), -math.log(1.15)])
    assert not out.excess.requires_grad


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("options", everything(), ids=FORMS)
def test_nan_names_the_row_or_skips_it(options):
    for rows, name in ((None, "1"), ([70, 71, 72], "71")):
        batch = batch_of("xx.", "ccxx.", "xxxx.", rows=rows)
        full = student(batch).detach()
        full[1, 6, 3] = math.nan
        full.requires_grad_()
        with pytest.raises(FloatingPointError, match=rf"in 1 row\(s\): {name}$"):
            loss(full, batch, options)
        out = loss(full, batch, options, nan="skip_row")
        clean = loss(full.detach()[[0, 2]], part_of(batch, [0, 2]), options)
        assert (out.term.count, out.term.skipped) == (3, 1)
        assert out.term.total.item() == pytest.approx(clean.term.total.item(), rel=1e-12)
        assert torch.equal(out.excess, clean.excess)
        out.term.total.backward()
        assert bool(full.grad.isfinite().all())
        assert bool((full.grad[1] == 0).all())
        with pytest.raises(ValueError, match="nan must be"):
            loss(full, batch, options, nan="ignore")


def test_nan_elsewhere_is_not_looked_at():
    batch = batch_of("xx.", "ccxx.")
    full = student(batch).detach()
    full[~length_plan(batch, [EOS]).gate] = math.nan
    assert loss(full.requires_grad_(), batch, LengthOptions()).term.total.isfinite()


def test_masks_and_sizes_that_do_not_match_are_refused():
    batch = batch_of("xx.", "x.")
    full, mask = student(batch), batch["response_mask"].clone()
    with pytest.raises(ValueError, match=r"one row for each position of mask \(5\): 4"):
        length_aware_kd_loss(full[mask][1:], mask, batch, eos_ids=[EOS])
    mask[1, 3] = False
    with pytest.raises(ValueError, match=r"mask must hold every gate position, row\(s\): \[1\]"):
        length_aware_kd_loss(full[mask], mask, batch, eos_ids=[EOS])
    with pytest.raises(ValueError, match="must have the shape of the batch"):
        length_aware_kd_loss(full[mask], mask[:, :5], batch, eos_ids=[EOS])
    with pytest.raises(ValueError, match=r"one entry a planned position \(2\): \[3\]"):
        length_loss_from_log_odds(torch.zeros(3), length_plan(batch, [EOS]))
    with pytest.raises(ValueError, match=r"ids must be in 0\.\.1: 2"):
        length_aware_kd_loss(
            full[..., :2][batch["response_mask"]], batch["response_mask"], batch, eos_ids=[EOS]
        )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("form", "mean"),
        ("slope", -1.0),
        ("slope", math.inf),
        ("hinge", math.nan),
        ("hinge", -0.1),
        ("quantile", 0.0),
        ("quantile", 1.1),
        ("max_new_tokens", 0),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        LengthOptions(**{option: value})


# ------------------------------------------------------------------------------------------------ from hidden states


@pytest.mark.parametrize("options", everything(), ids=FORMS)
def test_fused_log_odds_give_the_same_loss_and_gradient(options):
    batch = batch_of(*ANSWERS)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(
        *batch["labels"].shape, 5, generator=generator, dtype=torch.float64, requires_grad=True
    )
    weight = torch.randn(16, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    plan = length_plan(batch, [EOS])
    plain = loss(hidden @ weight.T, batch, options).term.total
    fused = length_loss_from_log_odds(
        linear_log_odds(hidden[plan.gate], weight, [EOS], chunk_rows=2), plan, options
    ).term.total
    assert fused.item() == pytest.approx(plain.item(), rel=1e-12)
    expected = torch.autograd.grad(plain, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(fused, (hidden, weight)), expected)


# ------------------------------------------------------------------------------------------------ the metric


def test_length_excess_is_a_metric_of_lengths():
    student_lengths, teacher_lengths = torch.tensor([23, 24, 30, 5]), torch.tensor([20, 20, 20, 20])
    assert length_excess(student_lengths, teacher_lengths).tolist() == pytest.approx([0.0, 0.05, 0.35, 0.0])
    exempt = torch.tensor([0, 1, 0, 0])
    got = length_excess(student_lengths, teacher_lengths, hinge=0.0, slope=2.0, exempt=exempt)
    assert got.tolist() == pytest.approx([0.3, 0.0, 1.0, 0.0])
    assert not length_excess(torch.tensor([9.0], requires_grad=True), torch.tensor([3])).requires_grad
    with pytest.raises(ValueError, match="teacher_lengths must be at least 1: 0"):
        length_excess(student_lengths, torch.tensor([1, 0, 1, 1]))
