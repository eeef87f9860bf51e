"""Whole runs of `kdfast train` on a tiny model: equal however they are split, stopped or killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import PATIENCE_S, Finished, run_command, run_process, start_process, wait_until
from safetensors.torch import load_file
from tiny_run import record, write_config

pytestmark = pytest.mark.slow

TIMES = {"seconds", "tokens_per_second"}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, teacher and its log-probabilities; runs differ by overrides only."""
    directory = tmp_path_factory.mktemp("runs")
    result = run_command("teach", write_config(directory))
    assert result.returncode == 0, result.stderr
    return directory


def train(taught: Path, run: Path, *options: str, ranks: int = 1) -> Finished:
    arguments = ("train", taught / "config.yaml", f"io.run_dir={run}", *options)
    return run_command(*arguments) if ranks == 1 else run_process(*arguments, ranks=ranks)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "student" / "model.safetensors")


def metrics(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in TIMES and name != "kind"}
        for line in lines
        if line["kind"] == kind
    ]


@pytest.fixture(scope="module")
def whole(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = train(taught, run)
    assert result.returncode == 0, result.stderr
    return run


def assert_same_run(run: Path, whole: Path) -> None:
    assert metrics(run) == metrics(whole)
    assert metrics(run, "validation") == metrics(whole, "validation")
    here, there = weights(run), weights(whole)
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert torch.equal(value, there[name]), name


def test_loss_falls_and_the_run_folder_is_complete(whole: Path) -> None:
    steps = metrics(whole)
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert {"loss", "kl", "ce_teacher", "ce_truth", "grad_norm", "learning_rate", "shape"} <= set(
        steps[0]
    ) | set(steps[1])
    validations = metrics(whole, "validation")
    assert [line["step"] for line in validations] == [0, 4, 8]
    assert validations[-1]["loss"] < validations[0]["loss"]
    # the student starts as the teacher itself
    assert validations[0]["kl"] == pytest.approx(0.0, abs=2e-3)
    assert validations[0]["token_agreement"] == pytest.approx(1.0, abs=0.02)
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step_6", "step_8"]


def test_the_student_loads_in_transformers_and_generates(whole: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(whole / "student")
    tokenizer = AutoTokenizer.from_pretrained(whole / "student")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "weather in Paris?"}],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert '"name": "f"' in text
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert out.shape[1] > ids["input_ids"].shape[1]


@pytest.mark.parametrize(
    ("rows", "ranks"),
    [
        (("train.micro_batch_size=8", "train.gradient_accumulation_steps=1"), 1),
        (("train.micro_batch_size=1", "train.gradient_accumulation_steps=8"), 1),
        ((), 2),
    ],
    ids=["8x1", "1x8", "4x2 on two ranks"],
)
def test_splitting_a_step_changes_nothing(
    taught: Path, whole: Path, tmp_path: Path, rows: tuple[str, ...], ranks: int
) -> None:
    result = train(taught, tmp_path / "run", *rows, ranks=ranks)
    assert result.returncode == 0, result.stderr
    for here, there in zip(metrics(tmp_path / "run"), metrics(whole), strict=True):
        assert here == pytest.approx(there, rel=2e-4, abs=2e-5)
    reference = weights(whole)
    for name, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(value, reference[name], rtol=1e-3, atol=2e-4, msg=name)


def kill_in_the_middle(
    taught: Path,
    run: Path,
    *overrides: str,
    by: signal.Signals,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Starts a run, calls `before` and sends the signal at a random moment after the first step."""
    process = start_process(
        *("train", taught / "config.yaml", f"io.run_dir={run}", *overrides),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wanted = random.Random(str(run)).randint(1, 6)
    file = run / "metrics.jsonl"
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") > wanted, process)
    process.send_signal(signal.SIGSTOP)  # so that it does not end before `before` is done
    before()
    process.send_signal(signal.SIGCONT)
    if by == signal.SIGKILL:
        os.killpg(process.pid, by)
    else:
        process.send_signal(by)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_bit_equal(taught: Path, whole: Path, tmp_path: Path, workers: int) -> None:
    run, extra = tmp_path / "run", f"data.workers={workers}"
    assert kill_in_the_middle(taught, run, extra, by=signal.SIGKILL) == -signal.SIGKILL
    assert not (run / "student").exists()
    result = train(taught, run, extra, "--resume")
    assert result.returncode == 0, result.stderr
    assert_same_run(run, whole)


def test_sigterm_saves_and_says_how_to_go_on(taught: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def resume_too_early() -> None:
        refused = train(taught, run, "--resume")
        assert refused.returncode == 2
        assert "io.run_dir: a run is going on there (process " in refused.stderr

    assert kill_in_the_middle(taught, run, by=signal.SIGTERM, before=resume_too_early) == 130
    steps = metrics(run)
    assert (run / "checkpoints" / f"step_{steps[-1]['step']}").is_dir()
    result = train(taught, run, "--resume")
    assert result.returncode == 0, result.stderr
    assert_same_run(run, whole)


def test_a_finished_run_is_not_trained_again(taught: Path, whole: Path) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    result = train(taught, whole, "--resume")
    assert result.returncode == 0, result.stderr
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_a_run_folder_in_the_way_is_refused(taught: Path, whole: Path, tmp_path: Path) -> None:
    again = train(taught, whole)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    other = train(taught, whole, "optimizer.learning_rate=0.5", "--resume")
    assert other.returncode == 2
    assert "optimizer.learning_rate" in other.stderr
    (tmp_path / "file").write_text("")
    file = train(taught, tmp_path / "file")
    assert file.returncode == 2
    assert "io.run_dir" in file.stderr


def test_a_damaged_checkpoint_is_an_error(taught: Path, whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "checkpoints" / "step_8" / "state.json").write_text("{")
    result = train(taught, run, "--resume")
    assert result.returncode == 2
    assert "state.json" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_validation_without_a_term_has_no_loss(tmp_path: Path) -> None:
    """It would be 0.0, as if the student were perfect."""
    config = write_config(tmp_path, kd__kl_weight=0.0, kd__ce_truth_weight=0.0, kd__ce_teacher_weight=1.0)
    held_out = [record(number) for number in (2001, 2003)]
    (tmp_path / "validation.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in held_out), encoding="utf-8"
    )
    off = (
        "kd.length_weight=0",
        "kd.early_tool_ce_weight=0",
        "kd.early_tool_prior_weight=0",
        "teacher.store=null",
    )
    done = run_command("train", config, *off, "teacher.model=null", f"arch.init={tmp_path / 'teacher'}")
    assert done.returncode == 0, done.stderr
    assert "validations have no loss" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert validations
    assert all("loss" not in line and "token_accuracy" in line for line in validations)
    assert not any("held-out loss" in line for line in done.stdout.splitlines() if "best" in line)
