"""The gates that measure no time: first actions, F1 and false calls."""

import math

import pytest
from speed_reports import gate, report

from kdfast.config.gates import GatesConfig

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


def test_infeasible_limit_is_said_instead_of_failing_every_student():
    one = report(ttfa_tokens__p95=70.0, shortest_call_tokens={"p50": 29, "p95": 63, "count": 40})
    result = gate("ttfa_p95", one, None)
    assert result.status == "skipped"
    assert result.reason == "infeasible: the shortest correct calls need p95 = 63 tokens"
    assert gate("ttfa_p95", one, None, strict=True).status == "failed"
    assert gate("ttfa_p95", one, None, GatesConfig(ttfa_p95_tokens=63)).status == "failed"
    assert gate("ttfa_p95", one, None, GatesConfig(ttfa_p95_tokens=70)).status == "passed"
    # A student that never calls fails all the same.
    never = report(ttfa_tokens={"p95": None, "infinite": 9}, shortest_call_tokens={"p95": 63})
    result = gate("ttfa_p95", never, None)
    assert (result.status, result.reason) == (
        "failed",
        "ttfa_tokens p95 is infinite; prompts without a valid call: 9",
    )
    # A function's name and the overhead can be shorter than a whole call: a limit on them is never infeasible.
    name = report(ttfa_name_tokens__p95=30.0, shortest_call_tokens={"p95": 63})
    assert gate("ttfa_p95", name, None, GatesConfig(ttfa_metric="ttfa_name_tokens")).status == "failed"


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


def test_false_call_rate_may_not_rise():
    def rate(calls, of=50):
        per_prompt = [1] * calls + [0] * (of - calls)
        return report(false_call_rate={"value": calls / of, "per_prompt": per_prompt})

    assert gate("false_call_rate", rate(2), rate(2)).reason == "rose by 0.0000"
    assert gate("false_call_rate", rate(1), rate(2)).reason == "fell by 0.0200"
    assert gate("false_call_rate", rate(3), rate(2)).status == "inconclusive"
    worse = gate("false_call_rate", rate(12), rate(2))
    assert (worse.status, worse.value, worse.limit, worse.baseline) == ("failed", 0.24, 0.05, 0.04)


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
