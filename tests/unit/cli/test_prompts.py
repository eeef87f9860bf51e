"""Which prompts a command takes if the user names none: a run folder brings its own held-out records."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import yaml
from click import UsageError
from commands import exit_code

from kdfast.cli.model_options import prompts_of

COMMANDS = [
    ["gate", "--candidate", "RUN", "--blessed", "other"],
    ["gate", "--candidate", "RUN", "--baseline", "baseline.json"],
    ["bless", "RUN", "--out", "baseline.json"],
    ["measure", "RUN", "--out", "speed.json"],
]


def write_run(folder: Path, **data: str) -> Path:
    folder.mkdir()
    config = {
        "arch": {"init": "teacher"},
        "data": {"train": "train.jsonl", "tokenizer": "models/small", **data},
        "teacher": {"model": "models/small", "store": "store"},
        "io": {"run_dir": str(folder)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def test_a_run_folder_brings_its_own_prompts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", validation="held_out.jsonl")
    assert prompts_of(run, None) == Path("held_out.jsonl")
    assert prompts_of(run, Path("others.jsonl")) == Path("others.jsonl")
    without = write_run(tmp_path / "without")
    assert prompts_of(without, Path("others.jsonl")) == Path("others.jsonl")
    with pytest.raises(UsageError, match="only a run folder has its own"):
        prompts_of(without, None)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_held_out_records_the_prompts_must_be_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for folder in (write_run(tmp_path / "run"), model):
        assert exit_code(*[str(folder) if word == "RUN" else word for word in command]) == 2
        line = f"Missing option '--prompts' (only a run folder has its own). (see kdfast {command[0]} --help)"
        assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_run_is_named_before_its_prompts(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = tmp_path / "none"
    assert exit_code(*[str(none) if word == "RUN" else word for word in command]) == 2
    line = f"no such directory; give a Hugging Face model directory or a run folder: {none}"
    assert capsys.readouterr().err.partition(": ")[2].partition(": ")[2] == f"{line}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_with_held_out_records_they_need_not_be_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", validation="held_out.jsonl")
    assert exit_code(*[str(run) if word == "RUN" else word for word in command]) == 2
    assert "this run has no student yet" in capsys.readouterr().err  # it stops later


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_held_out_records_are_said_to_be_the_runs(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = tmp_path / "run", tmp_path / "held_out.jsonl"
    write_run(run, validation=str(file))
    (tiny.write_tokenizer(run / "student") / "config.json").write_text("{}", encoding="utf-8")
    words = [str(run) if word in ("RUN", "other") else word for word in command]
    assert exit_code(*words) == 2
    line = (
        f"no such file (check the path): {file}, which is data.validation of the run {run}; name another with"
    )
    assert capsys.readouterr().err == f"error: {line} --prompts\n"


def test_only_the_candidate_brings_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", validation="held_out.jsonl")
    new = tmp_path / "new"
    new.mkdir()
    assert exit_code("gate", "--candidate", new, "--blessed", run) == 2
    assert "Missing option '--prompts'" in capsys.readouterr().err
