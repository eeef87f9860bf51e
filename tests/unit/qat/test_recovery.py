"""The recovery's decisions: what goes wrong, where a run goes back to, when it gives up, and after a resume."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast.config.quant import QuantConfig
from kdfast.errors import CheckpointError
from kdfast.qat import Action, Recovery


def machine(**changes):
    """A phase of 100 steps after step 400: its first tenth is steps 401 to 410."""
    return Recovery(first_step=400, last_step=500, **changes)


def step_many(recovery, first, last, loss):
    return [recovery.stepped(step, loss) for step in range(first, last + 1)]


def good(recovery, step):
    """A check that passed, and the checkpoint of the same step."""
    assert recovery.checked(step, passed=True).action is Action.GO_ON
    recovery.saved(step)


def test_a_quiet_phase_goes_on():
    recovery = machine()
    decisions = step_many(recovery, 401, 500, 1.0)
    assert {decision.action for decision in decisions} == {Action.GO_ON}
    assert (recovery.rollbacks, recovery.history, recovery.rate_factor) == (0, [], 1.0)


def test_a_failed_check_goes_back_to_the_last_good_state_at_half_the_rate():
    recovery = machine()
    good(recovery, 420)
    decision = recovery.checked(440, passed=False, reasons=["cosine 0.9", "KL"])
    assert (decision.action, decision.to_step, decision.rate_factor) == (Action.ROLL_BACK, 420, 0.5)
    assert decision.reason == "the check at step 440 failed: cosine 0.9; KL"
    assert recovery.history == [decision.reason]


@pytest.mark.parametrize(
    "events", ["saved only", "passed only", "saved then failed", "another step", "too high"]
)
def test_a_state_is_good_only_if_it_was_saved_and_its_own_check_passed(events):
    recovery = machine()
    step_many(recovery, 401, 410, 1.0)
    if events == "saved only":
        recovery.saved(420)
    elif events == "passed only":
        recovery.checked(420, passed=True)
    elif events == "another step":
        recovery.checked(420, passed=True)
        recovery.saved(421)
    elif events == "too high":
        step_many(recovery, 411, 415, 3.0)
        recovery.checked(415, passed=True)
        recovery.saved(415)
    else:
        recovery.saved(440)
    assert recovery.checked(440, passed=False).to_step == 400


def test_the_order_of_check_and_checkpoint_does_not_matter():
    recovery = machine()
    recovery.saved(420)
    recovery.checked(420, passed=True)
    assert recovery.good_step == 420


def test_the_loss_diverges_after_ten_steps_in_a_row_above_twice_its_first_mean():
    recovery = machine()
    for step in range(401, 411):
        recovery.stepped(step, 1.0 if step % 2 else 3.0)  # the mean is 2
    assert all(decision.action is Action.GO_ON for decision in step_many(recovery, 411, 419, 4.1))
    recovery.stepped(420, 4.0)  # not above: the count begins anew
    decisions = step_many(recovery, 421, 430, 4.1)
    assert [decision.action for decision in decisions] == [Action.GO_ON] * 9 + [Action.ROLL_BACK]
    assert decisions[-1].to_step == 400
    assert decisions[-1].reason == (
        "the loss diverges: 10 steps in a row up to step 430 above 2.0 times 2, its mean over the first 10 steps under "
        "quantisation; now 4.1"
    )


def test_high_losses_of_the_first_tenth_never_diverge():
    recovery = machine()
    assert all(decision.action is Action.GO_ON for decision in step_many(recovery, 401, 410, 1e9))


def test_after_a_rollback_into_the_first_tenth_its_losses_are_taken_again():
    recovery = machine()
    step_many(recovery, 401, 405, 1.0)
    good(recovery, 405)
    step_many(recovery, 406, 409, 100.0)
    assert recovery.checked(409, passed=False).to_step == 405
    step_many(recovery, 406, 410, 1.0)
    assert step_many(recovery, 411, 420, 2.5)[-1].action is Action.ROLL_BACK


def test_two_rollbacks_then_the_run_ends_in_float():
    recovery = machine()
    good(recovery, 420)
    first, second, third = (recovery.checked(step, passed=False, reasons=["c"]) for step in (440, 440, 450))
    assert [one.action for one in (first, second, third)] == [
        Action.ROLL_BACK,
        Action.ROLL_BACK,
        Action.GIVE_UP,
    ]
    assert (first.rate_factor, second.rate_factor, third.rate_factor) == (0.5, 0.25, 1.0)
    assert (second.to_step, third.to_step) == (420, 400)
    assert third.reason.endswith("given up after 2 rollbacks, the run ends in float")
    assert recovery.gave_up
    assert len(recovery.history) == 3
    assert recovery.stepped(460, 1e9).action is Action.GO_ON
    assert recovery.checked(460, passed=False).action is Action.GO_ON
    stop = recovery.not_finite(461, "the loss", float_is_finite=None)
    assert stop.action is Action.STOP


def test_a_check_that_fails_where_a_rollback_would_lead_gives_up_at_once():
    recovery = machine()
    good(recovery, 420)
    decision = recovery.checked(420, passed=False, reasons=["c"])
    assert (decision.action, decision.to_step) == (Action.GIVE_UP, 400)
    assert (
        decision.reason
        == "the check at step 420 failed: c; a rollback would end in the same state, so the run ends in float"
    )
    assert machine().checked(400, passed=False).action is Action.GIVE_UP


def test_without_rollbacks_the_first_failure_gives_up():
    assert machine(max_rollbacks=0).checked(410, passed=False).action is Action.GIVE_UP


@pytest.mark.parametrize(
    ("float_is_finite", "action"), [(True, Action.ROLL_BACK), (None, Action.ROLL_BACK), (False, Action.STOP)]
)
def test_nan_that_the_float_weights_give_too_is_the_run_s_own_error(float_is_finite, action):
    decision = machine().not_finite(403, "the gradient", float_is_finite=float_is_finite)
    assert decision.action is action
    assert decision.reason.startswith("the gradient at step 403 is not finite")
    checked = machine().checked(410, passed=False, float_is_finite=float_is_finite is not False)
    assert checked.action is action


def test_a_loss_that_is_not_finite_is_never_taken_for_a_step():
    with pytest.raises(ValueError, match="reported by not_finite: step 401, nan"):
        machine().stepped(401, float("nan"))


def test_the_config_decides_the_limits():
    config = QuantConfig(max_rollbacks=1, diverging_ratio=3, diverging_steps=2)
    recovery = Recovery.of(config, first_step=0, last_step=10)
    recovery.stepped(1, 1.0)
    recovery.stepped(2, 1.0)
    assert [one.action for one in step_many(recovery, 3, 4, 3.1)] == [Action.GO_ON, Action.ROLL_BACK]
    assert recovery.checked(3, passed=False).action is Action.GIVE_UP


@pytest.mark.parametrize(("first", "last"), [(-1, 5), (5, 5)])
def test_a_phase_without_steps_is_refused(first, last):
    with pytest.raises(ValueError, match="the phase must have a step"):
        Recovery(first_step=first, last_step=last)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("loss"), st.sampled_from([0.5, 1.0, 1.9, 2.5, 9.0])),
        st.tuples(st.just("check"), st.booleans()),
        st.tuples(st.just("save"), st.none()),
        st.tuples(st.just("nan"), st.sampled_from([True, None])),
    ),
    max_size=60,
)


def _play(recovery, events, step):
    """Feeds events as a loop would; gives the decisions and the step at the end."""
    decisions = []
    for kind, value in events:
        if kind == "save":
            recovery.saved(step)
            continue
        if kind == "loss":
            step += 1
            decision = recovery.stepped(step, value)
        elif kind == "check":
            decision = recovery.checked(step, passed=value)
        else:
            decision = recovery.not_finite(step + 1, "the loss", float_is_finite=value)
        if decision.action is Action.ROLL_BACK:
            step = decision.to_step
        decisions.append(decision)
    return decisions, step


@settings(max_examples=60)
@given(before=EVENTS, after=EVENTS)
def test_a_resumed_machine_decides_as_one_that_was_never_stopped(before, after):
    options = {"diverging_steps": 2, "max_rollbacks": 3}
    one, two = machine(**options), machine(**options)
    decisions, step = _play(one, before, 400)
    assert _play(two, before, 400) == (decisions, step)
    two = Recovery.from_state(json.loads(json.dumps(two.state_dict())))
    assert two == one
    assert _play(two, after, step) == _play(one, after, step)


@settings(max_examples=60)
@given(events=EVENTS)
def test_a_rollback_never_goes_forward_and_there_are_never_more_than_allowed(events):
    recovery = machine(diverging_steps=2)
    decisions, _ = _play(recovery, events, 400)
    back = [one for one in decisions if one.action is Action.ROLL_BACK]
    assert len(back) <= 2
    assert all(400 <= one.to_step <= 460 for one in back)
    assert [one.rate_factor for one in back] == [0.5, 0.25][: len(back)]
    assert recovery.gave_up == any(one.action is Action.GIVE_UP for one in decisions)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("good_step") and state.pop("first_step"),
        lambda state: state.pop("first_losses"),
        lambda state: state.update(first_losses=[["a", 1]]),
        lambda state: state.update(other=1),
        lambda state: state.update(last_step=0),
    ],
)
def test_a_state_that_is_damaged_is_refused(damage):
    state = machine().state_dict()
    damage(state)
    with pytest.raises(CheckpointError, match="state of quantisation is damaged; resume from an older one"):
        Recovery.from_state(state)
