"""A first look at what a gate judges by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdfast.config import GatesConfig
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.first_look.of_gate import check_baselines, check_enabled, check_reports

REPORT = {
    "kind": "kdfast.speed_report",
    "schema_version": "1.0",
    "metrics": {},
    "absent": {},
    "hardware": {},
    "fingerprints": {},
}
BASELINE = {"kind": "kdfast.speed_baseline", "schema_version": "1.0", "reports": [REPORT]}


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_something_must_be_judged() -> None:
    check_enabled(GatesConfig())
    with pytest.raises(ConfigError, match=r"gates.enabled: must name at least one gate"):
        check_enabled(GatesConfig(enabled=()))


def test_a_baseline_is_a_bundle_or_a_report(tmp_path: Path) -> None:
    none, good = tmp_path / "none.json", written(tmp_path / "baseline.json", BASELINE)
    check_baselines(GatesConfig())
    check_baselines(GatesConfig(baseline=good), [])
    check_baselines(GatesConfig(baseline=none), [good, written(tmp_path / "report.json", REPORT)])
    with pytest.raises(ConfigError, match=r"^gates.baseline: no such file \(check the path\): "):
        check_baselines(GatesConfig(baseline=none))
    with pytest.raises(ConfigError, match=r"^--baseline: is a directory \(name a file instead\): "):
        check_baselines(GatesConfig(), [tmp_path])
    with pytest.raises(DataError, match="not a baseline: kind must be"):
        check_baselines(GatesConfig(), [written(tmp_path / "other.json", {"kind": "kdfast.gate_report"})])


def test_a_report_is_a_speed_report(tmp_path: Path) -> None:
    check_reports([written(tmp_path / "report.json", REPORT)])
    with pytest.raises(ConfigError, match=r"^--candidate-report: no such file"):
        check_reports([tmp_path / "none.json"])
    with pytest.raises(DataError, match=r"not a speed report: kind must be 'kdfast.speed_report'"):
        check_reports([written(tmp_path / "baseline.json", BASELINE)])
