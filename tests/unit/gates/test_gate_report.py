"""The gates' report as JUnit and as a table, wrong documents, and the baseline file."""

import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from speed_reports import gate, report, runs, statuses

from kdfast.config.gates import GATE_NAMES, GatesConfig
from kdfast.errors import ConfigError, DataError
from kdfast.gates import (
    GATES,
    GateReport,
    GateResult,
    Pairs,
    baseline_bundle,
    evaluate_speed_gates,
    load_baseline_speed_metrics,
    noise_floor,
    write_baseline,
)
from kdfast.gates.display import gate_table

# ------------------------------------------------------------------ output


def test_junit_escapes():
    result = GateResult(name='a<b>&"', status="failed", reason="1 < 2 & \x00\ud800 ]]>", value=math.inf)
    text = GateReport(results=(result, replace(result, status="report_only"))).to_junit()
    first, second = ET.fromstring(text.encode()).iter("testcase")  # noqa: S314 - our own text
    assert first.get("name") == 'a<b>&"'
    assert first.find("failure").get("message") == "1 < 2 & \ufffd\ufffd ]]>"
    assert "value inf" in first.find("system-out").text
    assert second.find("skipped").get("message").startswith("report_only: ")


def test_table_shows_every_gate_and_takes_no_markup_from_a_reason():
    made = evaluate_speed_gates(report(ttfa_tokens=None, absent={"ttfa_tokens": "[bold]x[/bold]"}), None)
    output = io.StringIO()
    Console(file=output, width=200).print(gate_table(made))
    text = output.getvalue()
    assert all(name in text for name in GATE_NAMES)
    assert "[bold]x[/bold]" in text
    assert "Gates: failed" in text


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_remedy_is_never_cut_in_two(width):
    remedy = "set gates.ttfa_metric=ttfa_overhead_tokens"
    result = GateResult(
        name="ttfa_p95", status="skipped", reason=f"{'infeasible ' * 9}{remedy}", unit="tokens"
    )
    output = io.StringIO()
    Console(file=output, width=width).print(gate_table(GateReport(results=(result,))))
    lines = output.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert any("gates.ttfa_metric=ttfa_overhead_tokens" in line for line in lines)


def test_the_table_says_passed_only_where_a_gate_was_judged():
    def title(*found):
        results = tuple(GateResult(name=f"g{n}", status=status, reason="r") for n, status in enumerate(found))
        return gate_table(GateReport(results=results)).title

    assert title("skipped", "report_only") == "Gates: none was judged"
    assert title("skipped", "passed") == "Gates: passed"
    assert title("passed", "failed") == "Gates: failed"


# ------------------------------------------------------------------ which gates, and wrong documents


def test_every_gate_has_its_name():
    assert tuple(GATES) == GATE_NAMES
    for limits in (GatesConfig(), GatesConfig(enabled=GATE_NAMES[::-1])):
        made = evaluate_speed_gates(report(), None, limits)
        assert tuple(result.name for result in made.results) == GATE_NAMES


def test_only_enabled_gates_are_evaluated():
    made = evaluate_speed_gates({"metrics": {}}, None, GatesConfig(enabled=["ttfa_p95"]))
    assert statuses(made) == {"ttfa_p95": "failed"}
    assert evaluate_speed_gates({"metrics": {}}, None, GatesConfig(enabled=[])).passed
    with pytest.raises(KeyError, match="f1"):
        made["f1"]


@pytest.mark.parametrize(
    "document",
    ["text", [], 5, ["text"], {"kind": "other"}, {"metrics": []}, {"hardware": {"key": 3}}, {"quality": "x"}],
)
def test_what_is_no_report_is_refused(document):
    with pytest.raises(DataError, match=r"^current: "):
        evaluate_speed_gates(document, None)
    with pytest.raises(DataError, match=r"^baseline: "):
        evaluate_speed_gates(report(), document)


def test_the_gates_load_no_torch():
    code = "import sys, kdfast; kdfast.evaluate_speed_gates; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_changed_by_judging():
    current, baseline = runs(), runs()
    before = json.dumps([current, baseline])
    evaluate_speed_gates(current, baseline, strict=True)
    assert json.dumps([current, baseline]) == before


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"enabled": ["ttft"]}, "gates.enabled"),
        ({"enabled": ["f1", "f1"]}, "gates.enabled"),
        ({"max_pairs": 15}, "gates.max_pairs"),
        ({"min_pairs": 5}, "gates.min_pairs"),
        ({"min_runs": 5}, "gates.min_runs"),
        ({"ttft_regression_fraction": 0}, "gates.ttft_regression_fraction"),
        ({"tps_regression_fraction": 1}, "gates.tps_regression_fraction"),
        ({"ttfa_metric": "ttfa_ms"}, "gates.ttfa_metric"),
    ],
)
def test_config_names_the_key(values, path):
    with pytest.raises(ConfigError, match=f"^{path}: must be "):
        GatesConfig(**values)


# ------------------------------------------------------------------ the blessed baseline


def test_bundle_round_trip(tmp_path):
    noise = {"ttft": noise_floor(Pairs.from_rounds([[1.0], [1.0], [2.0]], [[1.0], [2.0], [2.0]]))}
    assert noise["ttft"]["sd_log_ratio"] == pytest.approx(math.log(2) / math.sqrt(3))
    assert (noise["ttft"]["pairs"], noise["ttft"]["median_ratio"]) == (3, 1.0)
    assert noise["ttft"]["planned_pairs"] == math.ceil(50**2 * math.log(2) ** 2 / 3)
    bundle = baseline_bundle(runs(), noise, {"ttft": "too noisy"})
    assert bundle["unsteady"] == {"ttft": "too noisy"}
    path = tmp_path / "made" / "baseline.json"
    write_baseline(path, bundle)
    loaded = load_baseline_speed_metrics(path)
    assert loaded == bundle
    assert [entry.name for entry in path.parent.iterdir()] == ["baseline.json"]
    assert loaded["fingerprints"] == {"prompts": "p", "model": "m"}
    assert evaluate_speed_gates(runs(), loaded)["ttft_p50"].status == "passed"


def test_a_single_report_is_a_baseline_too(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report()))
    assert gate("ttft_p50", report(), load_baseline_speed_metrics(path)).status == "report_only"


def test_a_missing_file_is_none_only_when_asked(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_baseline_speed_metrics(tmp_path / "none.json")
    assert load_baseline_speed_metrics(tmp_path / "none.json", missing_ok=True) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"kind": "kdfast.speed_report"}',
        b'{"kind": "other", "schema_version": "1.0", "metrics": {}}',
        b'{"kind": "kdfast.speed_report", "schema_version": "2.0", "metrics": {}}',
        b'{"kind": "kdfast.speed_report", "schema_version": 1.0, "metrics": {}}',
        b'{"kind": "kdfast.speed_report", "schema_version": "1.0"}',
        b'{"kind": "kdfast.speed_report", "schema_version": "1.0", "metrics": NaN}',
        b'{"kind": "kdfast.speed_report", "schema_version": "1.0", "metrics": {}, "hardware": []}',
        b'{"kind": "kdfast.speed_baseline", "schema_version": "1.0", "reports": []}',
        b'{"kind": "kdfast.speed_baseline", "schema_version": "1.0", "reports": [{}]}',
        b'{"kind": "kdfast.speed_baseline", "schema_version": "1.0", "reports": ["x"]}',
    ],
)
@pytest.mark.parametrize("missing_ok", [False, True])
def test_a_damaged_baseline_is_an_error_that_names_file_and_remedy(tmp_path, content, missing_ok):
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="bless a run again") as error:
        load_baseline_speed_metrics(path, missing_ok=missing_ok)
    assert str(error.value).startswith(f"{path}: ")


def test_no_cut_baseline_is_read(tmp_path):
    path = tmp_path / "baseline.json"
    write_baseline(path, baseline_bundle(runs()))
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_baseline_speed_metrics(path)


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([], "at least one speed report"),
        ([report(hardware={})], "a report lacks hardware.key"),
        ([report(fingerprints={"prompts": "p"})], "a report lacks fingerprints.model"),
        ([report(), report(fingerprints__prompts="q")], "fingerprints.prompts must be the same"),
    ],
)
def test_a_bundle_needs_its_hashes(reports, reason):
    with pytest.raises(DataError, match=reason):
        baseline_bundle(reports)


def test_a_bundle_with_nan_is_not_written(tmp_path):
    with pytest.raises(DataError, match="NaN or infinity"):
        write_baseline(tmp_path / "b.json", baseline_bundle([report(ttft_ms__p50=math.nan)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rows", [[[1.0]], [[1.0], [0.0]], [[1.0], [math.inf]]])
def test_a_noise_floor_needs_sound_pairs(rows):
    with pytest.raises(DataError, match="noise floor"):
        noise_floor(Pairs.from_rounds(rows, rows))
