"""The gates on reports: every value, limit and verdict worked out by hand."""

import json
import math
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speed_reports import RELATIVE, TIMES, gate, report, runs, statuses

from kdfast.config.gates import GATE_NAMES, GatesConfig
from kdfast.gates import (
    GateReport,
    GateResult,
    Pairs,
    decide_paired,
    evaluate_speed_gates,
)

# ------------------------------------------------------------------ the plan's seven


def test_no_baseline_skips_gates():
    made = evaluate_speed_gates(report(), None)
    assert statuses(made) == dict.fromkeys(RELATIVE, "skipped") | {"ttfa_p95": "passed"}
    assert all(made[name].reason == "no_baseline" for name in RELATIVE)
    assert (made["ttft_p50"].value, made["tps_p95"].value, made["ttft_p50"].baseline) == (100.0, 40.0, None)
    assert (made.passed, made.exit_code) == (True, 0)


def test_hardware_mismatch_skips_gates():
    other = runs(hardware__key="cpu-b", ttft_ms__p50=10.0)
    made = evaluate_speed_gates(runs(), other)
    assert {made[name].status for name in TIMES} == {"skipped"}
    assert made["ttft_p50"].reason == "hardware_mismatch: cpu-a against cpu-b"
    # Neither tokens nor answers depend on the hardware.
    assert {made[name].status for name in ("ttfa_p95", "f1", "false_call_rate")} == {"passed"}
    allowed = evaluate_speed_gates(runs(), other, allow_cross_hardware=True)
    assert allowed["ttft_p50"].status == "failed"


def test_ttft_regression_pass():
    made = evaluate_speed_gates(runs(ttft_ms__p50=104.0, ttft_ms__p95=124.8), runs())
    assert (made["ttft_p50"].status, made["ttft_p95"].status) == ("passed", "passed")
    assert made["ttft_p50"].reason == "1.040 times as slow, limit 1.050"
    # Geometric means of 98.75, 99.25, ..., 101.25 and of 1.04 times as much.
    middle = math.prod((98.75, 99.25, 99.75, 100.25, 100.75, 101.25)) ** (1 / 6)
    assert made["ttft_p50"].value == pytest.approx(1.04 * middle)
    assert made["ttft_p50"].baseline == pytest.approx(middle)
    assert made["ttft_p50"].limit == pytest.approx(1.05 * middle)


def test_ttft_regression_fail():
    made = evaluate_speed_gates(runs(ttft_ms__p50=107.0), runs())
    assert (made["ttft_p50"].status, made["ttft_p95"].status) == ("failed", "passed")
    # The most extreme of the 924 ways to deal twelve runs to two sides.
    assert made["ttft_p50"].reason == "1.070 times as slow, limit 1.050 (p = 0.00108, 6 and 6 runs)"
    assert (made.passed, made.exit_code) == (False, 3)


def test_tps_regression_pass():
    # baseline / candidate = 1 / 0.955 = 1.047; the slow tail of tps is its low percentile: p95 may fall.
    made = evaluate_speed_gates(runs(tps__p50=47.75, tps__p5=39.0, tps__p95=1.0), runs())
    assert (made["tps_p50"].status, made["tps_p95"].status) == ("passed", "passed")
    assert made["tps_p50"].limit == pytest.approx(made["tps_p50"].baseline * 0.95)
    assert made["tps_p95"].value == pytest.approx(39.0, rel=1e-4)


def test_ttfa_gate_pass():
    for p95 in (20.0, 25.0):
        result = gate("ttfa_p95", report(ttfa_tokens__p95=p95), None)
        assert (result.status, result.value, result.limit) == ("passed", p95, 25.0)
        assert result.unit == "tokens"


def test_ttfa_gate_fail():
    result = gate("ttfa_p95", report(ttfa_tokens__p95=26.0), report())
    assert (result.status, result.value, result.limit) == ("failed", 26.0, 25.0)
    assert result.reason == "ttfa_tokens p95 = 26 > 25"


# ------------------------------------------------------------------ missing, NaN, zero, infinite


@pytest.mark.parametrize(("name", "path"), [("ttft_p50", "ttft_ms__p50"), ("tps_p95", "tps__p5")])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing: "),
        (math.nan, "is NaN"),
        (0.0, "must be finite and above 0, got 0.0"),
        (-2.0, "must be finite and above 0, got -"),
        (math.inf, "must be finite and above 0, got inf"),
        ("12", "must be a number, got '12'"),
        (True, "must be a number, got True"),
    ],
)
def test_a_time_that_is_none_fails_on_either_side(name, path, value, reason):
    bad = runs(**{path: value}) if isinstance(value, float) else [report(**{path: value})] * 6
    for current, baseline in ((bad, runs()), (bad, None), (bad, runs(hardware__key="cpu-b")), (runs(), bad)):
        result = gate(name, current, baseline)
        assert result.status == "failed"
        assert reason in result.reason
        assert result.reason.startswith("baseline: ") == (current is not bad)


def test_a_missing_metric_fails_with_the_reason_that_the_report_gives():
    absent = report(ttfa_tokens=None, ttft_ms=None, quality=None)
    absent["absent"] = {"ttfa_tokens": "no prompt needs a call", "quality": "not asked for"}
    made = evaluate_speed_gates(absent, report())
    assert made["ttfa_p95"].reason == "missing: ttfa_tokens (no prompt needs a call)"
    assert made["ttft_p95"].reason == "missing: ttft_ms"
    assert made["f1"].reason.startswith("missing: f1 (not asked for); measure it, or leave f1 out")
    assert statuses(made) == dict.fromkeys(GATE_NAMES, "failed") | dict.fromkeys(TIMES[2:], "report_only")


def test_null_beside_a_count_of_infinities_is_infinite():
    never = report(ttfa_tokens={"p95": None, "infinite": 3})
    result = gate("ttfa_p95", never, None)
    assert (result.status, result.value) == ("failed", math.inf)
    assert result.reason == "ttfa_tokens p95 is infinite; prompts without a valid call: 3"
    assert "got inf" in gate("ttft_p50", report(ttft_ms={"p50": None, "infinite": 1}), None).reason
    assert gate("ttfa_p95", report(ttfa_tokens={"p95": None, "infinite": 0}), None).reason == (
        "missing: ttfa_tokens.p95"
    )


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("f1", 0.8, "passed"),
        ("f1", 0.0, "failed"),
        ("f1", math.nan, "failed"),
        ("f1", 1.5, "failed"),
        ("f1", math.inf, "failed"),
        ("false_call_rate", 0.0, "passed"),
        ("false_call_rate", math.nan, "failed"),
        ("false_call_rate", None, "failed"),
        ("missed_call_rate", 0.0, "passed"),
        ("missed_call_rate", math.nan, "failed"),
        ("missed_call_rate", None, "failed"),
    ],
)
def test_a_quality_that_is_none_fails(name, value, status):
    assert gate(name, report(**{f"{name}__value": value}), report()).status == status
    if value:  # a blessed F1 of 0 is a fact, however sad; NaN is none
        assert gate(name, report(), report(**{f"{name}__value": value})).status == status


@pytest.mark.parametrize("status", ["skipped", "inconclusive"])
def test_strict_turns_skipped_and_inconclusive_into_failure(status):
    limits = GatesConfig(enabled=["ttft_p50"])
    noisy = [report(ttft_ms__p50=value) for value in (80.0, 85.0, 90.0, 100.0, 110.0, 125.0)]
    baseline = None if status == "skipped" else noisy
    mild, strict = (evaluate_speed_gates(noisy, baseline, limits, strict=strict) for strict in (False, True))
    assert (mild["ttft_p50"].status, mild.exit_code) == (status, 0)
    assert (strict["ttft_p50"].status, strict.exit_code) == ("failed", 3)
    assert strict["ttft_p50"].reason == f"strict: {status}: {mild['ttft_p50'].reason}"


def test_strict_leaves_passed_and_report_only():
    made = evaluate_speed_gates(report(), report(), strict=True)
    assert statuses(made) == dict.fromkeys(GATE_NAMES, "passed") | dict.fromkeys(TIMES, "report_only")
    assert made.passed


# ------------------------------------------------------------------ comparable sides, several runs


@pytest.mark.parametrize("keys", [(None, None), ("cpu-a", None), (None, "cpu-a")])
def test_unknown_hardware_is_a_mismatch(keys):
    current, baseline = ([report(hardware={"key": key} if key else {})] for key in keys)
    assert gate("tps_p50", current, baseline).reason.startswith("hardware_mismatch: ")
    assert gate("tps_p50", current, baseline, allow_cross_hardware=True).status == "report_only"


def test_one_run_on_other_hardware_among_several_is_a_mismatch():
    mixed = [*runs(4), report(hardware__key="cpu-b")]
    assert gate("ttft_p50", mixed, runs()).reason == "hardware_mismatch: cpu-a and cpu-b against cpu-a"


def test_other_prompts_and_proxies_are_not_compared():
    other = report(fingerprints__prompts="q")
    made = evaluate_speed_gates(report(), other)
    assert {made[name].reason for name in RELATIVE} == {"prompts_mismatch: p against q"}
    silent = report(fingerprints={})
    for sides, reason in (
        ((report(), silent), "p against unknown"),
        ((silent, report()), "unknown against p"),
    ):
        assert gate("f1", *sides).reason == f"prompts_mismatch: {reason}"
    assert gate("f1", silent, silent).status == "passed"  # taken at their word
    proxy, exported = report(export=False), report(export=True)
    assert gate("ttft_p50", proxy, exported).reason.startswith("export_mismatch")
    assert gate("f1", proxy, exported).status == "passed"


def test_quality_by_other_right_answers_is_not_compared():
    one, other = (report(fingerprints__truth=truth) for truth in ("t", "u"))
    for sides, reason in (((one, other), "t against u"), ((one, report()), "t against unknown")):
        made = evaluate_speed_gates(*sides)
        for name in ("f1", "false_call_rate"):
            assert (made[name].status, made[name].reason) == ("skipped", f"truth_mismatch: {reason}")
        assert made["ttft_p50"].status == "report_only"
    assert gate("f1", one, one).status == "passed"


def test_answers_cut_elsewhere_are_not_compared():
    short, long = (report() | {"decoding": {"mode": "free", "max_new_tokens": most}} for most in (64, 128))
    made = evaluate_speed_gates(short, long)
    assert {made[name].reason for name in RELATIVE} == {"decoding_mismatch: max_new_tokens 64 against 128"}
    assert evaluate_speed_gates(short, short)["f1"].status == "passed"
    unknown = gate("f1", short, report())
    assert unknown.reason == "decoding_mismatch: mode free against unknown"
    named = [
        short | {"decoding": short["decoding"] | {"formats": list(one)}} for one in (["hermes"], ["object"])
    ]
    assert gate("f1", *named).reason == "decoding_mismatch: formats ['hermes'] against ['object']"
    constrained = report() | {"decoding": {"mode": "constrained"}}
    assert gate("f1", constrained, short).reason == "decoding_mismatch: mode constrained against free"


def test_one_report_a_side_is_report_only():
    result = gate("ttft_p50", report(ttft_ms__p50=300.0), report())
    assert (result.status, result.value, result.baseline) == ("report_only", 300.0, 100.0)
    assert (
        result.reason
        == "3.000 times as slow; 6 runs a side, or `kdfast gate --blessed`, would decide, got 1 and 1"
    )
    assert gate("ttft_p50", runs(ttft_ms__p50=300.0), runs(5)).status == "report_only"


def test_sides_measured_one_after_the_other_decide_nothing():
    def timed(reports, start, step):
        return [one | {"measured_at": start + step * number} for number, one in enumerate(reports)]

    slow, blessed = runs(ttft_ms__p50=110.0), timed(runs(), 0, 10)
    silent = [{name: value for name, value in one.items() if name != "measured_at"} for one in slow]
    assert gate("ttft_p50", timed(slow, 5, 10), blessed).status == "failed"
    result = gate("ttft_p50", timed(slow, 1000, 10), blessed)
    assert result.status == "report_only"
    assert "one side was measured after the other" in result.reason
    for sides in ((silent, blessed), (blessed, silent), (silent, silent), ([*slow[:5], silent[5]], blessed)):
        result = gate("ttft_p50", *sides)
        assert result.status == "report_only"
        assert "not every report says when it was measured" in result.reason


def test_runs_that_overlap_are_inconclusive_and_a_tail_then_reports_only():
    loose = [report(ttft_ms__p50=v, ttft_ms__p95=v) for v in (95.0, 97.0, 100.0, 108.0, 116.0, 125.0)]
    made = evaluate_speed_gates(loose, runs(ttft_ms__p95=100.0))
    assert (made["ttft_p50"].status, made["ttft_p95"].status) == ("inconclusive", "report_only")


@pytest.mark.parametrize("sizes", [(6, 6), (7, 6), (9, 9)])
def test_the_p_value_counts_the_ways_to_deal_the_runs(sizes):
    values = [100.0, 103.0, 104.0, 108.0, 111.0, 112.0, 115.0, 119.0, 121.0, 123.0, 126.0]
    values = (values * 2)[: sum(sizes)]
    current, baseline = [value * 1.1 for value in values[: sizes[0]]], values[sizes[0] :]
    result = gate(
        "ttft_p50",
        [report(ttft_ms__p50=v) for v in current],
        [report(ttft_ms__p50=v) for v in baseline],
        GatesConfig(ttft_regression_fraction=1e-6),
    )
    logs = [math.log(value) for value in (*current, *baseline)]
    deals = [sum(deal) for deal in combinations(logs, sizes[0])]
    p = sum(deal >= sum(logs[: sizes[0]]) - 1e-9 for deal in deals) / len(deals)
    slower = sum(logs[: sizes[0]]) / sizes[0] > sum(logs[sizes[0] :]) / sizes[1]
    assert (result.status == "failed") == (slower and p <= 0.0025)
    if result.status == "failed" and len(deals) <= 20_000:
        assert f"(p = {p:.3g}," in result.reason


# ------------------------------------------------------------------ the paired trial decides about time


def test_paired_decisions_stand_above_the_reports():
    times = [[float(ms)] for ms in range(80, 120)]
    same, slow = (Pairs.from_rounds([[row[0] * by] for row in times], times) for by in (1.0, 1.2))
    paired = {"ttft": decide_paired(slow, slow), "tps": decide_paired(same)}
    made = evaluate_speed_gates(report(), None, paired=paired)
    assert statuses(made) == {
        "ttft_p50": "failed",
        "ttft_p95": "report_only",
        "tps_p50": "passed",
        "tps_p95": "report_only",
        "ttfa_p95": "passed",
        "f1": "skipped",
        "false_call_rate": "skipped",
        "missed_call_rate": "skipped",
    }
    result = made["ttft_p50"]
    assert (result.value, result.limit, result.baseline) == (pytest.approx(1.2), 1.05, 1.0)
    open_ = evaluate_speed_gates(report(), None, paired={"ttft": decide_paired(slow)})
    assert open_["ttft_p50"].status == "inconclusive"


# ------------------------------------------------------------------ properties


@given(st.permutations(range(6)), st.floats(0.9, 1.2))
def test_the_order_of_runs_does_not_matter(order, by):
    current, baseline = runs(ttft_ms__p50=100.0 * by), runs()
    shuffled = [current[n] for n in order]
    first, second = (evaluate_speed_gates(side, baseline) for side in (current, shuffled))
    assert statuses(first) == statuses(second)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60), st.randoms())
def test_the_order_of_prompts_does_not_matter(rows, random):
    def judged(rows):
        sides = [
            report(f1={"value": sum(side) / len(side), "per_prompt": side})
            for side in zip(*[(float(a), float(b)) for a, b in rows], strict=True)
        ]
        return evaluate_speed_gates(*sides)["f1"]

    shuffled = random.sample(rows, len(rows))
    assert judged(rows) == judged(shuffled)


@given(st.floats(0.5, 2.0), st.floats(1.0, 2.0))
def test_a_slower_candidate_never_does_better(by, further):
    order = {"passed": 0, "inconclusive": 1, "failed": 2}
    ranks = [
        order[gate("ttft_p50", runs(ttft_ms__p50=100 * factor), runs()).status]
        for factor in (by, by * further)
    ]
    assert ranks[0] <= ranks[1]


NUMBERS = st.none() | st.floats(allow_nan=False).filter(lambda x: x != -math.inf)
RESULTS = st.builds(
    GateResult,
    name=st.text(min_size=1),
    status=st.sampled_from(["passed", "failed", "skipped", "inconclusive", "report_only"]),
    reason=st.text(),
    value=NUMBERS,
    limit=NUMBERS,
    baseline=NUMBERS,
    unit=st.text(),
)
REPORTS = st.builds(GateReport, results=st.lists(RESULTS, max_size=8).map(tuple), strict=st.booleans())


@given(REPORTS)
def test_json_round_trip(made):
    text = json.dumps(made.to_json(), allow_nan=False)
    assert GateReport.from_json(json.loads(text)) == made
    assert json.loads(text)["exit_code"] == (3 if any(r.status == "failed" for r in made.results) else 0)


@given(REPORTS)
def test_junit_is_xml_and_counts_right(made):
    suite = ET.fromstring(made.to_junit()).find("testsuite")  # noqa: S314 - our own text
    cases = suite.findall("testcase")
    assert [len(case.findall("failure")) for case in cases] == [r.status == "failed" for r in made.results]
    assert len(cases) == int(suite.get("tests"))
    assert len(suite.findall("testcase/failure")) == int(suite.get("failures"))
    assert len(suite.findall("testcase/skipped")) == int(suite.get("skipped"))
