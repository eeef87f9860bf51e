"""Speed inside a training run: what is written, that it disturbs nothing, and that a failure is seen and harmless."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_run import write_config

from kdfast.config import load_config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.distributed.ranks import Ranks
from kdfast.gates import evaluate_speed_gates
from kdfast.recipes.train.run import Run
from kdfast.recipes.train.speed import SpeedProbe
from kdfast.runs.metrics import MetricsLog
from kdfast.speed import read_speed_report, speed_prompts

SHORT = (
    "train.num_steps=4",
    "train.validate_every_steps=1",
    "speed.max_new_tokens=6",
    "speed.prompts=3",
    "data.shapes=[290,310,512]",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("speed")
    write_config(
        directory,
        kd__kl_weight=0.0,
        kd__ce_truth_weight=1.0,
        kd__length_weight=0.0,
    )
    return directory


def train(folder: Path, run: Path, *overrides: str, clock: Any = None) -> tuple[Run, str]:
    """A whole run in this process; returns it and what it showed."""
    config = load_config(folder / "config.yaml", [*SHORT, f"io.run_dir={run}", *overrides])
    config.io.run_dir.mkdir()
    made = Run(config, Ranks(), resume=False)
    shown = io.StringIO()
    made.display = Display(Console(file=shown, width=200))
    with MetricsLog(made.folder.metrics, tensorboard=config.io.tensorboard) as log:
        loop = made._loop(log)
        if clock is not None:
            loop.speed.clock = clock
        assert loop.run()
    return made, shown.getvalue()


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["kind"] == kind]


@pytest.fixture(scope="module")
def measured(folder: Path) -> tuple[Run, str]:
    return train(folder, folder / "measured", "io.tensorboard=true")


def test_metrics_of_a_validation_loop(measured: tuple[Run, str]) -> None:
    run, shown = measured
    found = lines(run.folder.path, "speed")
    assert [line["step"] for line in found] == [0, 1, 2, 3, 4]
    for line in found:
        assert line["export"] is False
        assert line["absent"] == {}
        assert 0 < line["ttft_ms.p50"] <= line["ttft_ms.p90"] <= line["ttft_ms.p95"]
        assert 0 < line["tps.p5"] <= line["tps.p10"] <= line["tps.p50"]
        assert line["output_tokens.p50"] == 6
        # a random student calls nothing: infinite, named as such, and counted
        assert (line["ttfa_tokens.count"], line["ttfa_tokens.infinite"]) == (3, 3)
        assert line["ttfa_tokens.cut"] == 3
        assert "ttfa_tokens.p95" in line["not_finite"]
        assert "ttfa_tokens.p95" not in line
    assert shown.count("speed at step") == 5
    assert "ttfa_tokens p50 cut (cut at 6 tokens in 3 of 3)" in shown  # it did not end its answers


def test_slices_by_shape(measured: tuple[Run, str], folder: Path) -> None:
    run, _ = measured
    assert run.validation_data is not None
    prompts = speed_prompts(run.validation_data, 3, spread=True)
    (line, *_) = lines(run.folder.path, "speed")
    slices = {name.partition(".")[0] for name in line if name.startswith("shape_")}
    assert slices == {f"shape_{prompt.shape}" for prompt in prompts}
    assert len(slices) > 1


def test_tensorboard_gets_the_numbers(measured: tuple[Run, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = measured
    events = EventAccumulator(str(run.folder.path / "tensorboard"))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("speed/ttft_ms.p50")]
    assert written == [
        (line["step"], pytest.approx(line["ttft_ms.p50"])) for line in lines(run.folder.path, "speed")
    ]


def test_the_report_of_the_last_measurement(measured: tuple[Run, str]) -> None:
    run, _ = measured
    report = read_speed_report(run.folder.speed)
    assert (report["step"], report["export"]) == (4, False)
    assert report["metrics"]["ttft_ms"]["count"] == 3
    assert report["fingerprints"]["config"] == run.config.fingerprint()
    validation = run.config.data.validation.read_bytes()
    assert report["fingerprints"]["dataset"] == hashlib.sha256(validation).hexdigest()
    assert len(report["fingerprints"]["truth"]) == 64
    assert report["shortest_call_tokens"]["count"] == 3
    assert report["quality"]["f1"]["value"] == 0.0  # it called nothing where three calls were due
    assert report["absent"]["false_call_rate"] == "every prompt needs a call"
    gates = evaluate_speed_gates(report, None)
    assert gates["ttft_p50"].reason == "no_baseline"
    assert gates["ttfa_p95"].status in ("failed", "skipped")


def test_measuring_changes_nothing_of_the_training(measured: tuple[Run, str], folder: Path) -> None:
    run, _ = measured
    twin, shown = train(folder, folder / "twin", "speed.every_validations=0")
    assert "speed" not in shown
    assert not twin.folder.speed.exists()
    timing = {"seconds", "tokens_per_second"}
    for kind in ("train", "validation"):
        with_speed, without = (
            [{key: value for key, value in line.items() if key not in timing} for line in lines(path, kind)]
            for path in (run.folder.path, twin.folder.path)
        )
        assert with_speed == without
    for name, value in run.student.state_dict().items():
        assert torch.equal(value, twin.student.state_dict()[name]), name


@pytest.mark.slow
def test_every_so_many_validations(folder: Path, tmp_path: Path) -> None:
    run, _ = train(folder, tmp_path / "run", "speed.every_validations=3", "speed.prompts=1")
    assert [line["step"] for line in lines(run.folder.path, "speed")] == [0, 3, 4]


@pytest.mark.slow
def test_a_failure_to_measure_is_visible_and_harmless(
    measured: tuple[Run, str], folder: Path, tmp_path: Path
) -> None:
    readings = iter(range(20))  # enough for the first measurement's beginning

    def clock() -> float:
        try:
            return float(next(readings))
        except StopIteration:
            raise RuntimeError("the clock\nhas stopped") from None

    run, shown = train(folder, tmp_path / "run", clock=clock)
    assert run.progress.step == 4
    assert shown.count("not measured: RuntimeError: the clock has stopped") == 5
    found = lines(run.folder.path, "speed")
    assert [line["step"] for line in found] == [0, 1, 2, 3, 4]
    for line in found:
        assert set(line) == {"step", "kind", "export", "absent"}  # no number at all, above all no 0
        assert line["absent"]["ttft_ms"] == "RuntimeError: the clock has stopped"
    # the run is the one that it would have been
    reference, _ = measured
    for name, value in reference.student.state_dict().items():
        assert torch.equal(value, run.student.state_dict()[name]), name
    report = read_speed_report(run.folder.speed)
    gate = evaluate_speed_gates(report, None)["ttft_p50"]
    assert (gate.status, gate.reason) == (
        "failed",
        "missing: ttft_ms (RuntimeError: the clock has stopped)",
    )


def test_a_student_of_nans_is_not_measured(measured: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = measured
    assert run.validation_data is not None
    from transformers import LlamaForCausalLM

    broken = LlamaForCausalLM(run.student.config).train()
    with torch.no_grad():
        broken.lm_head.weight.fill_(math.nan)
    probe = SpeedProbe(run.config, broken, run.validation_data, tmp_path / "speed.json")
    display = Display(Console(file=io.StringIO(), width=200))
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        probe.run_when_due(4, log, display)
    (line,) = lines(tmp_path, "speed")
    assert line["absent"]["tps"] == "FloatingPointError: the model's logits are NaN"
    assert broken.training


def test_prompts_that_cannot_be_made_do_not_stop_the_run(folder: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    for record in records:
        record["metadata"] = {"accepted": "none"}
    prompts = tmp_path / "validation.jsonl"
    prompts.write_text("".join(json.dumps(record) + "\n" for record in records))
    steps = ("train.num_steps=1", "optimizer.warmup_steps=1")
    run, shown = train(folder, tmp_path / "run", f"data.validation={prompts}", *steps)
    assert run.progress.step == 1
    assert "not measured: DataError: " in shown
    assert "{argument: [accepted values]}" in shown  # no markup
    for line in lines(run.folder.path, "speed"):
        assert "metadata.accepted must be a list" in line["absent"]["ttft_ms"]


def test_a_disk_that_is_full_does_stop_the_run(measured: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = measured
    (tmp_path / "file").write_text("")
    probe = SpeedProbe(run.config, run.student, run.validation_data, tmp_path / "file" / "speed.json")
    with MetricsLog(tmp_path / "metrics.jsonl") as log, pytest.raises(OSError, match="file"):
        probe.run_when_due(4, log, Display(Console(file=io.StringIO())))


def test_prompts_are_one_a_record_and_from_all_shapes(folder: Path) -> None:
    data = KDDataset(folder / "validation.jsonl", folder / "teacher", shapes=[290, 310, 512], threads=1)
    assert len(data) > 12  # some of the 12 records have two rows
    every = speed_prompts(data)
    assert [prompt.line for prompt in every] == list(range(1, 13))
    assert [prompt.needs_call for prompt in every] == [number % 4 != 3 for number in range(48, 60)]
    assert all((prompt.shortest_call_tokens is not None) == prompt.needs_call for prompt in every)
    assert [prompt.line for prompt in speed_prompts(data, 2)] == [1, 2]
    spread = speed_prompts(data, spread=True)
    assert sorted(prompt.line for prompt in spread) == list(range(1, 13))
    assert [prompt.needs_call for prompt in spread] == [True] * 9 + [False] * 3
    shapes = {prompt.shape for prompt in every if prompt.needs_call}
    assert len(shapes) > 1
    assert {prompt.shape for prompt in spread[: len(shapes)]} == shapes
    for prompt in every:
        assert prompt.text.endswith("<|im_start|>assistant\n")
        assert "get_weather" in prompt.tools


@pytest.mark.parametrize(
    ("every", "validate_every", "due"),
    [(1, 10, [0, 10, 20, 30, 35]), (2, 10, [0, 20, 35]), (0, 10, []), (3, 0, [0, 35])],
)
def test_when_it_is_due(folder: Path, every: int, validate_every: int, due: list[int]) -> None:
    speed = load_config(folder / "config.yaml", [f"speed.every_validations={every}"]).speed
    validations = [0, *(range(validate_every, 35, validate_every) if validate_every else ()), 35]
    assert due == [
        step
        for step in validations
        if speed.due(step=step, num_steps=35, validate_every_steps=validate_every)
    ]
