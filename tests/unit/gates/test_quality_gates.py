"""The gates that measure no time: first actions, F1, false calls and missed calls."""

import math
from dataclasses import replace

import pytest
from speed_reports import gate, report

from kdfast.config.gates import GatesConfig
from kdfast.gates import evaluate_speed_gates

# ------------------------------------------------------------------ TTFA


def test_ttfa_metric_by_config():
    one = report(ttfa_tokens__p95=60.0)
    found = {
        metric: gate("ttfa_p95", one, None, GatesConfig(ttfa_metric=metric, ttfa_p95_tokens=14)).status
        for metric in ("ttfa_tokens", "ttfa_name_tokens", "ttfa_overhead_tokens")
    }
    assert found == {
        "ttfa_tokens": "failed",
        "ttfa_name_tokens": "passed",
        "ttfa_overhead_tokens": "passed",
    }


@pytest.mark.parametrize(("value", "status"), [(0.0, "passed"), (-1.0, "passed"), (math.nan, "failed")])
def test_an_overhead_of_zero_is_the_best_there_is(value, status):
    limits = GatesConfig(ttfa_metric="ttfa_overhead_tokens", ttfa_p95_tokens=0)
    assert gate("ttfa_p95", report(ttfa_overhead_tokens__p95=value), None, limits).status == status


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_first_action_before_the_first_token_fails(value):
    result = gate("ttfa_p95", report(ttfa_tokens__p95=value), None)
    assert result.reason == f"ttfa_tokens.p95 must be above 0, got {value:g}"


SHORTEST = {"p50": 29, "p95": 63, "count": 40}
NEVER = {"p95": None, "infinite": 9}
INFEASIBLE = (
    "infeasible: the shortest correct calls need p95 = 63 tokens, more than the limit 25; "
    "set gates.ttfa_metric=ttfa_overhead_tokens"
)


@pytest.mark.parametrize(("tokens", "value"), [({"p95": 70.0}, 70.0), (NEVER, math.inf)])
def test_an_infeasible_limit_is_said_and_is_no_failure_of_the_student(tokens, value):
    one = report(ttfa_tokens=tokens, shortest_call_tokens=SHORTEST)
    result = gate("ttfa_p95", one, None)
    assert (result.status, result.reason, result.value, result.limit) == ("skipped", INFEASIBLE, value, 25.0)
    assert gate("ttfa_p95", one, None, strict=True).reason == f"strict: skipped: {INFEASIBLE}"
    # The remedy is one: the overhead is within the same limit.
    assert gate("ttfa_p95", one, None, GatesConfig(ttfa_metric="ttfa_overhead_tokens")).status == "passed"
    # A limit that the shortest calls keep is feasible.
    assert gate("ttfa_p95", one, None, GatesConfig(ttfa_p95_tokens=63)).status == "failed"
    assert gate("ttfa_p95", one, None, GatesConfig(ttfa_p95_tokens=62)).status == "skipped"


def test_a_value_within_the_limit_passes_whatever_the_shortest_calls_need():
    one = report(ttfa_tokens__p95=25.0, shortest_call_tokens=SHORTEST)
    assert gate("ttfa_p95", one, None).status == "passed"


@pytest.mark.parametrize("tokens", [{"p95": math.nan}, {"p95": 0.0}, {"p95": None, "infinite": 0}, None])
def test_what_is_no_number_of_tokens_fails_although_the_limit_is_infeasible(tokens):
    one = report(ttfa_tokens=tokens, shortest_call_tokens=SHORTEST)
    assert gate("ttfa_p95", one, None).status == "failed"


def test_of_several_runs_the_worst_value_and_the_longest_shortest_call_count():
    slow, silent = (
        report(ttfa_tokens=tokens, shortest_call_tokens=SHORTEST) for tokens in ({"p95": 70.0}, NEVER)
    )
    result = gate("ttfa_p95", [slow, silent, slow], None)
    assert (result.status, result.reason, result.value) == ("skipped", INFEASIBLE, math.inf)
    # One run has no shortest calls.
    assert gate("ttfa_p95", [report(), slow], None).reason == INFEASIBLE
    feasible = report(ttfa_tokens=NEVER, shortest_call_tokens={"p95": 25})
    result = gate("ttfa_p95", [report(), feasible], None)
    assert (result.status, result.value) == ("failed", math.inf)
    assert result.reason == "ttfa_tokens p95 is infinite; prompts without a valid call: 9"


def test_a_limit_on_names_or_on_the_overhead_is_never_infeasible():
    limits = [GatesConfig(ttfa_metric=metric) for metric in ("ttfa_name_tokens", "ttfa_overhead_tokens")]
    for one in limits:
        for tokens in ({"p95": 30.0}, NEVER):
            current = report(**{one.ttfa_metric: tokens}, shortest_call_tokens=SHORTEST)
            assert gate("ttfa_p95", current, None, one).status == "failed"


def test_missed_calls_fail_their_own_gate_beside_an_infeasible_limit():
    one = report(ttfa_tokens=NEVER, shortest_call_tokens=SHORTEST, **rates("missed_call_rate", 12))
    made = evaluate_speed_gates(one, report(**rates("missed_call_rate", 2)))
    assert (made["ttfa_p95"].status, made["missed_call_rate"].status) == ("skipped", "failed")


def test_ttfa_takes_the_worst_run():
    assert gate("ttfa_p95", [report(), report(ttfa_tokens__p95=26.0)], None).value == 26.0


# ------------------------------------------------------------------ quality


def f1_report(right, missed, **changes):
    """A report whose F1 is 2 tp / (2 tp + fn)."""
    per_prompt = [[1, 0, 0]] * right + [[0, 0, 1]] * missed
    return report(f1={"value": 2 * right / (2 * right + missed), "per_prompt": per_prompt}, **changes)


@pytest.mark.parametrize(
    ("right", "status"),
    [
        (95, "passed"),  # 0.9744 as before
        (94, "passed"),  # 0.9691
        (93, "inconclusive"),  # 0.9637: 0.98^100 = 13 % of the draws have neither of the two worse prompts
        (90, "failed"),  # 0.9474: 0.95^100 = 0.6 % have none of the five worse prompts
        (80, "failed"),  # 0.8889
    ],
)
def test_f1_falls_by_the_paired_bootstrap(right, status):
    result = gate("f1", f1_report(right, 100 - right), f1_report(95, 5), GatesConfig(f1_drop=0.006))
    assert result.status == status
    assert result.limit == pytest.approx(190 / 195 - 0.006)


def test_a_fall_on_one_prompt_of_many_is_inconclusive():
    # 0.99^100 = 37 % of the draws do not have the one worse prompt, so the bound is 0.
    result = gate("f1", f1_report(94, 6), f1_report(95, 5), GatesConfig(f1_drop=0.001))
    assert result.status == "inconclusive"
    assert result.reason == "fell by 0.0053 > 0.001, but perhaps by chance: more prompts are needed"


def rates(name, calls, of=50):
    """The change of `report` that sets a rate."""
    return {name: {"value": calls / of, "per_prompt": [1] * calls + [0] * (of - calls)}}


RISES = {"false_call_rate": "false_call_rise", "missed_call_rate": "missed_call_rise"}
PARTS = {"false_call_rate": "attempted_call_rate", "missed_call_rate": "broken_call_rate"}


@pytest.mark.parametrize(("name", "key"), RISES.items())
def test_a_rate_may_not_rise(name, key):
    def judged(current, baseline, **limits):
        sides = (report(**rates(name, calls)) for calls in (current, baseline))
        return gate(name, *sides, GatesConfig(**limits))

    assert judged(2, 2).reason == "rose by 0.0000"
    assert judged(1, 2).reason == "fell by 0.0200"
    assert judged(3, 2).status == "inconclusive"
    worse = judged(12, 2)
    assert (worse.status, worse.value, worse.limit, worse.baseline) == ("failed", 0.24, 0.05, 0.04)
    # Its own limit decides, and no other.
    assert judged(12, 2, **{key: 0.2}).status == "passed"
    others = {other: 0.2 for other in ("f1_drop", *RISES.values()) if other != key}
    assert judged(12, 2, **others).status == "failed"


@pytest.mark.parametrize("name", RISES)
def test_a_rate_without_results_of_prompts_on_one_side_is_judged_by_the_values(name):
    old = report(**{name: {"value": 0.04, "low": 0.0, "high": 0.1}})
    assert gate(name, report(**rates(name, 2)), old).status == "passed"
    result = gate(name, report(**rates(name, 3)), old)
    assert (result.status, result.limit) == ("failed", pytest.approx(0.05))
    assert "judged by the values alone" in result.reason


def test_missed_calls_that_no_report_has_are_not_measured():
    without = report(missed_call_rate=None)
    for baseline in (without, None, report(quality=None)):
        result = gate("missed_call_rate", without, baseline)
        assert (result.status, result.reason) == ("skipped", "not_measured: no report has missed_call_rate")
    assert gate("missed_call_rate", without, None, strict=True).status == "failed"
    # One side has it: the other must have it, too.
    assert gate("missed_call_rate", without, report()).reason == (
        "missing: missed_call_rate; measure it, or leave missed_call_rate out of gates.enabled"
    )
    assert gate("missed_call_rate", report(), without).reason == (
        "baseline: missing: missed_call_rate; bless again"
    )


def with_part(name, part, calls=2, **changes):
    """A report with a rate, and with its part as the report has it."""
    made = report(**rates(name, calls), **changes)
    made["quality"][PARTS[name]] = part
    return made


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_told_in_the_reason_and_decides_nothing(name):
    old, part = with_part(name, {"value": 0.05}), {"value": 0.1, "per_prompt": [1] * 5 + [0] * 45}
    told = f"; {PARTS[name]} 0.1000 (baseline 0.0500)"
    for calls, status in ((1, "passed"), (2, "passed"), (3, "inconclusive"), (12, "failed")):
        without = gate(name, report(**rates(name, calls)), old)
        result = gate(name, with_part(name, part, calls), old)
        assert result == replace(without, reason=without.reason + told)
        assert result.status == status
    assert gate(name, with_part(name, {"value": 1.0}), old).reason == (
        f"rose by 0.0000; {PARTS[name]} 1.0000 (baseline 0.0500)"
    )
    other = ({*PARTS} - {name}).pop()
    assert PARTS[name] not in gate(other, with_part(name, part), old).reason
    assert PARTS[name] not in gate("f1", with_part(name, part), old).reason


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_told_where_there_is_one_and_the_gate_was_judged(name):
    one, none = with_part(name, {"value": 0.1}), with_part(name, {"value": 0.0})
    assert gate(name, one, report(**rates(name, 2))).reason == f"rose by 0.0000; {PARTS[name]} 0.1000"
    assert gate(name, none, none).reason == "rose by 0.0000"
    assert gate(name, none, one).reason == f"rose by 0.0000; {PARTS[name]} 0.0000 (baseline 0.1000)"
    assert gate(name, one, None).reason == "no_baseline"


@pytest.mark.parametrize("part", [None, 0.1, {}, {"value": None}, {"value": math.nan}, {"value": math.inf}])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_no_number_is_not_told(name, part):
    good = with_part(name, {"value": 0.1})
    assert gate(name, with_part(name, part), good).reason == "rose by 0.0000"
    assert gate(name, good, with_part(name, part)).reason == f"rose by 0.0000; {PARTS[name]} 0.1000"


def test_quality_without_prompts_is_judged_by_the_values():
    assert gate("f1", report(f1__value=0.79), report()).status == "passed"
    result = gate("f1", report(f1__value=0.78), report())
    assert result.status == "failed"
    assert "judged by the values alone" in result.reason


@pytest.mark.parametrize("per_prompt", [[1.0] * 3, [[1, 0]], [[1, 0, 0], 1.0], ["a"], [math.nan]])
def test_results_that_do_not_pair_up_fail(per_prompt):
    one = report(f1={"value": 0.5, "per_prompt": [0.5, 0.5]})
    other = report(f1={"value": 0.8, "per_prompt": per_prompt})
    assert gate("f1", one, other).reason.startswith("baseline: ")
