"""Which prompts a command takes if the user names none: a run folder brings its own held-out records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import exit_code

import kdfast.recipes.gate
import kdfast.recipes.measure


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the recipes were asked for; no model is run."""
    requests: list[Any] = []

    def recipe(request: Any, *_: Any) -> int:
        requests.append(request)
        return 0

    for module, name in (
        (kdfast.recipes.gate, "gate"),
        (kdfast.recipes.gate, "bless"),
        (kdfast.recipes.measure, "run"),
    ):
        monkeypatch.setattr(module, name, recipe)
    return requests


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


COMMANDS = [
    ["gate", "--candidate", "RUN", "--blessed", "other"],
    ["gate", "--candidate", "RUN", "--baseline", "baseline.json"],
    ["bless", "RUN", "--out", "baseline.json"],
    ["measure", "RUN", "--out", "speed.json"],
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_folder_brings_its_own_prompts(command: list[str], asked: list[Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", validation="held_out.jsonl")
    arguments = [str(run) if word == "RUN" else word for word in command]
    assert exit_code(*arguments) == 0
    assert exit_code(*arguments, "--prompts", "others.jsonl") == 0
    assert [request.prompts for request in asked] == [Path("held_out.jsonl"), Path("others.jsonl")]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_held_out_records_the_prompts_must_be_named(
    command: list[str], asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for folder in (write_run(tmp_path / "run"), model, tmp_path / "none"):
        assert exit_code(*[str(folder) if word == "RUN" else word for word in command]) == 2
        line = f"Missing option '--prompts' (only a run folder has its own). (see kdfast {command[0]} --help)"
        assert capsys.readouterr().err == f"error: {line}\n"
    assert asked == []


def test_only_the_candidate_brings_prompts(asked: list[Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", validation="held_out.jsonl")
    assert exit_code("gate", "--candidate", "models/new", "--blessed", run) == 2
    assert asked == []
