"""Speed and gates: what cannot be measured, met or judged is said before training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from preflight_objects import assert_only_fails, clean, look
from preflight_slow import copied_run

from kdfast.recipes.preflight.checks_speed import gates_can_be_judged
from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.shown.result import Row
from kdfast.recipes.preflight.table import CHECKS
from kdfast.runs.folder import RunFolder
from kdfast.speed import describe_hardware, prompts_fingerprint, speed_prompts

MEASURED, IN_TIME, JUDGED = (
    "speed.metrics_are_measured", "speed.first_call_can_be_in_time", "speed.gates_can_be_judged",
)  # fmt: skip


def with_config(section, **values):
    """The clean objects with other values in one section of the config; what else is made of it stays."""
    config = clean().get("config")
    changed = replace(config, **{section: replace(getattr(config, section), **values)})
    kept = {
        name: clean().get(name) for name in ("held_out_rows", "sample_rows", "machine", "small", "figures")
    }
    return clean().replaced(config=changed, **kept)


def test_times_are_measured():
    found = look(MEASURED, clean())
    assert found.status == "pass"
    assert "2 prompts: ttft_ms p50" in found.text


def test_a_time_that_was_not_measured_is_named_with_its_reason(tmp_path):
    run = copied_run(tmp_path)
    file = RunFolder(run.project.config.io.run_dir).speed
    report = json.loads(file.read_text(encoding="utf-8"))
    del report["metrics"]["tps"]
    report["absent"]["tps"] = "fewer than two tokens"
    file.write_text(json.dumps(report), encoding="utf-8")
    found = look(MEASURED, clean().replaced(run=run))
    assert (found.status, found.text) == ("fail", "tps could not be measured: fewer than two tokens")


def test_without_a_report_it_fails(tmp_path):
    run = copied_run(tmp_path)
    RunFolder(run.project.config.io.run_dir).speed.unlink()
    found = look(MEASURED, clean().replaced(run=run))
    assert found.status == "fail"
    assert "speed.json" in found.text


def run_with(**sections):
    """The small run, as if its config had other values."""
    run = clean().get("run")
    config = run.project.config
    changed = {name: replace(getattr(config, name), **values) for name, values in sections.items()}
    return replace(run, project=replace(run.project, config=replace(config, **changed)))


def test_what_is_switched_off_is_not_measured():
    found = look(MEASURED, clean().replaced(run=run_with(speed={"every_validations": 0})))
    assert (found.status, found.text) == ("skip", "speed.every_validations is 0")


def test_without_held_out_prompts_there_is_nothing_to_measure_on():
    none = {"eval_prompts": 0, "eval_irrelevance_prompts": 0}
    found = look(MEASURED, clean().replaced(run=run_with(data={"validation": None}, train=none)))
    assert found.status == "skip"
    assert "data.validation is not set" in found.text


def test_a_limit_that_the_shortest_calls_keep_passes():
    found = look(IN_TIME, clean())
    assert found.status == "pass"
    assert "the limit is 200" in found.text


def test_a_limit_that_no_right_call_keeps_fails():
    found = assert_only_fails(IN_TIME, with_config("gates", ttfa_p95_tokens=3.0))
    assert "more than the limit 3: no student can pass" in found.text
    assert "gates.ttfa_p95_tokens" in found.remedy
    assert "gates.ttfa_metric=ttfa_overhead_tokens" in found.remedy


def test_the_default_limit_is_only_warned_of():
    objects = with_config("gates", ttfa_p95_tokens=3.0)
    config = objects.get("config")
    nobody = {key: where for key, where in config.origins.items() if not key.startswith("gates.")}
    objects = objects.replaced(
        config=replace(config, origins=nobody), sample_rows=clean().get("sample_rows"),
        held_out_rows=clean().get("held_out_rows"),
    )  # fmt: skip
    found = look(IN_TIME, objects)
    assert found.status == "warn"
    assert "the gate will be skipped" in found.text


def test_without_held_out_rows_the_sample_is_asked():
    objects = with_config("gates", ttfa_p95_tokens=3.0).replaced(held_out_rows=None)
    assert "sampled prompts" in look(IN_TIME, objects).text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"enabled": ("f1",)}, "the gate ttfa_p95 is not enabled"),
        ({"ttfa_metric": "ttfa_overhead_tokens"}, "counts tokens beyond the shortest right call"),
        ({"ttfa_metric": "ttfa_name_tokens", "ttfa_p95_tokens": 3.0}, "only their names must come within 3"),
    ],
)
def test_a_limit_of_another_kind_is_not_judged(values, text):
    found = look(IN_TIME, with_config("gates", **values))
    assert found.status == "skip"
    assert text in found.text


def test_gates_without_a_baseline_are_warned_of():
    found = look(JUDGED, clean())
    assert found.status == "warn"
    assert "there is no baseline" in found.text
    assert "kdfast bless" in found.remedy


def test_gates_without_a_baseline_fail_if_strict():
    """Of all that fails where a warning does, exactly this row comes from the gates."""

    def strictly_failing(objects):
        cheap = [check for check in CHECKS if not check.slow]
        rows = [Row.of(check, one, 0.0, strict=True) for check in cheap for one in look_once(check, objects)]
        return {row.name for row in rows if row.status == "fail"}

    without_gates = strictly_failing(with_config("gates", enabled=()))
    assert JUDGED not in without_gates
    assert strictly_failing(clean()) - without_gates == {JUDGED}


def test_without_gates_there_is_nothing_to_judge():
    assert look(JUDGED, with_config("gates", enabled=())).status == "skip"


def test_gates_without_held_out_prompts_are_warned_of():
    found = gates_can_be_judged(clean().get("config"), None)
    assert found.status == "warn"
    assert "data.validation" in found.remedy


def baseline(path, **changes):
    """A blessed report of this machine on the held-out prompts."""
    rows = clean().get("held_out_rows")
    hardware = describe_hardware(torch.device("cpu"), torch.float32)
    key = replace(hardware, torch_threads=clean().get("config").train.threads).key
    report = {
        "kind": "kdfast.speed_report",
        "schema_version": "1.0",
        "metrics": {},
        "absent": {},
        "hardware": {"key": key},
        "fingerprints": {},
        "prompts": [{"fingerprint": prompts_fingerprint([prompt])} for prompt in speed_prompts(rows)],
    }
    path.write_text(json.dumps(report | changes), encoding="utf-8")
    return path


def test_a_baseline_of_this_machine_and_these_prompts_passes(tmp_path):
    found = look(JUDGED, with_config("gates", baseline=baseline(tmp_path / "blessed.json")))
    assert found.status == "pass"
    assert "12 prompts of data.validation" in found.text


def test_a_damaged_baseline_fails(tmp_path):
    (tmp_path / "blessed.json").write_text("{", encoding="utf-8")
    objects = with_config("gates", baseline=tmp_path / "blessed.json")
    found = assert_only_fails("config.files_are_there", objects)
    assert "blessed.json" in found.text
    assert look(JUDGED, objects).text == "the file gates.baseline cannot be read, see config.files_are_there"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hardware": {"key": "another CPU"}}, "the baseline is of another CPU, this is"),
        ({"hardware": {}}, "the baseline is of unknown hardware, this is"),
        ({"prompts": [{"fingerprint": "ab"}]}, "1 of the baseline's 1 prompts are not in data.validation"),
        ({"prompts": []}, "0 of the baseline's 0 prompts are not in data.validation"),
    ],
)
def test_a_baseline_that_does_not_compare_is_warned_of(tmp_path, changes, text):
    found = look(JUDGED, with_config("gates", baseline=baseline(tmp_path / "blessed.json", **changes)))
    assert found.status == "warn"
    assert text in found.text


def test_gates_of_quality_need_no_equal_hardware(tmp_path):
    file = baseline(tmp_path / "blessed.json", hardware={"key": "another CPU"})
    objects = with_config("gates", baseline=file, enabled=("f1",))
    assert look(JUDGED, objects).status == "pass"
