"""The gates at the end of a training run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import exit_code
from tiny_run import write_config

from kdfast.gates import GateReport


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("final")
    write_config(directory)
    return directory


@pytest.fixture(scope="module")
def blessed(folder: Path) -> Path:
    """The baseline bundle of the tiny teacher."""
    out = folder / "baseline.json"
    arguments = ("bless", folder / "teacher", "--prompts", folder / "validation.jsonl", "--out", out)
    settings = ("--device=cpu", "--threads=1", "--max-new-tokens=4", "--template=hermes")
    assert exit_code(*arguments, *settings, "gates.min_pairs=20", "gates.max_pairs=20") == 0
    return out


def train(folder: Path, run: Path, *overrides: str) -> tuple[int, GateReport]:
    settings = (
        "kd.kl_weight=0",
        "kd.ce_truth_weight=1",
        "train.num_steps=2",
        "train.validate_every_steps=0",
        "speed.max_new_tokens=4",
        f"io.run_dir={run}",
    )
    code = exit_code("train", folder / "config.yaml", *settings, *overrides)
    return code, GateReport.from_json(json.loads((run / "gates.json").read_text()))


@pytest.mark.slow
def test_gates_after_training(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = "gates.ttfa_metric=ttfa_name_tokens"  # no feasibility check: a random student fails it
    code, report = train(folder, tmp_path / "run", limits)
    shown = capsys.readouterr().out
    assert code == 0
    assert "Gates: failed" in shown
    assert "does not fail the run unless train.fail_on_gate is true" in shown
    assert str(tmp_path / "run" / "gates.json") in shown
    assert (report["ttft_p50"].status, report["ttft_p50"].reason) == ("skipped", "no_baseline")
    assert report["ttfa_p95"].status == "failed"
    again, _ = train(folder, tmp_path / "other", limits, "train.fail_on_gate=true")
    assert again == 3
    assert (tmp_path / "other" / "student" / "model.safetensors").exists()


def test_what_was_not_measured_is_skipped_and_that_is_said_once_at_the_start(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = train(folder, tmp_path / "run", "speed.every_validations=0", "train.fail_on_gate=true")
    assert code == 0
    shown = capsys.readouterr().out
    told = "so f1, false_call_rate and missed_call_rate will be skipped as not measured"
    assert shown.count(told) == 1
    assert shown.index(told) < shown.index("step 1/2" if "step 1/2" in shown else "step 2/2")
    reasons = {result.name: result.reason for result in report.results}
    assert {result.status for result in report.results} == {"skipped"}
    assert reasons["ttfa_p95"] == "not_measured: speed.every_validations is 0"
    assert reasons["f1"] == "not_measured: train.eval_prompts is 0"
    assert reasons["false_call_rate"] == "not_measured: train.eval_irrelevance_prompts is 0"
    assert reasons["missed_call_rate"] == "not_measured: train.eval_prompts is 0"


@pytest.mark.slow
def test_no_gate_at_all(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    config["kd"] |= {"kl_weight": 0.0, "ce_truth_weight": 1.0}
    config["train"] |= {"num_steps": 2, "validate_every_steps": 0}
    config["gates"] = {"enabled": []}
    config["io"]["run_dir"] = str(run)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert exit_code("train", tmp_path / "config.yaml") == 0
    assert not (run / "gates.json").exists()


def with_prompts(blessed: Path, out: Path, fingerprint: str | None = None) -> Path:
    """The baseline as if of other prompts; without a fingerprint as if of the same ones in another file."""
    document = json.loads(blessed.read_text())
    (report,) = document["reports"]
    for prompt in report["prompts"]:
        prompt["line"] += 100
        prompt["fingerprint"] = fingerprint or prompt["fingerprint"]
    report["fingerprints"]["prompts"] = fingerprint or report["fingerprints"]["prompts"]
    out.write_text(json.dumps(document))
    return out


@pytest.mark.slow
def test_the_student_answers_the_baselines_prompts(
    folder: Path, blessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enabled = "gates.enabled=[ttft_p50,tps_p50,false_call_rate]"
    for run, baseline in (("run", blessed), ("moved", with_prompts(blessed, tmp_path / "moved.json"))):
        code, report = train(folder, tmp_path / run, enabled, f"gates.baseline={baseline}")
        assert code == 0
        assert report["ttft_p50"].status == report["tps_p50"].status == "report_only"
        assert report["false_call_rate"].baseline == 0.0
        assert "are not all in data.validation" not in capsys.readouterr().out
    # a baseline of other prompts
    other = with_prompts(blessed, tmp_path / "other.json", "0" * 64)
    code, report = train(folder, tmp_path / "other", enabled, f"gates.baseline={other}")
    assert code == 0
    assert report["ttft_p50"].reason.startswith("prompts_mismatch")
    assert "the baseline's prompts are not all in data.validation" in capsys.readouterr().out


@pytest.mark.slow
def test_an_evaluation_of_other_prompts_is_not_compared(folder: Path, blessed: Path, tmp_path: Path) -> None:
    other = with_prompts(blessed, tmp_path / "other.json", "0" * 64)
    settings = (
        "train.eval_prompts=9",
        "train.eval_irrelevance_prompts=3",
        "train.eval_max_new_tokens=4",
        "gates.enabled=[false_call_rate]",
        f"gates.baseline={other}",
    )
    # with a speed report of other prompts than the evaluation's, and without one
    for run, extra in (("with", ()), ("without", ("speed.every_validations=0",))):
        code, result = train(folder, tmp_path / run, *settings, *extra)
        assert code == 0
        assert result["false_call_rate"].status == "skipped"
        assert result["false_call_rate"].reason.startswith("prompts_mismatch: ")
        evaluation = json.loads((tmp_path / run / "evaluation_after.json").read_text())
        assert evaluation["fingerprints"]["prompts"][:12] in result["false_call_rate"].reason


def test_a_baseline_that_is_not_there_is_told_before_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"io.run_dir={tmp_path / 'run'}", f"gates.baseline={tmp_path / 'lost.json'}"]
    assert exit_code("train", folder / "config.yaml", *overrides) == 2
    assert "lost.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
