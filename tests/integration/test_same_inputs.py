"""`--resume` goes on with the inputs that the run was started with, wherever they are, and with no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import exit_code
from tiny_run import record, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A taught run that ended after two steps."""
    folder = tmp_path_factory.mktemp("stopped")
    config = write_config(folder, arch__init=str(folder / "first"))
    shutil.copytree(folder / "teacher", folder / "first")
    assert exit_code("teach", config) == 0
    assert exit_code("train", config, "train.num_steps=2") == 0
    return folder


@pytest.fixture
def here(stopped: Path, tmp_path: Path) -> Path:
    """A copy whose config names the copies."""
    folder = tmp_path / "copy"
    shutil.copytree(stopped, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(stopped), str(folder)))
    saved = folder / "run/config.yaml"
    saved.write_text(saved.read_text().replace(str(stopped), str(folder)))
    return folder


def resume(folder: Path, *overrides: str) -> int:
    return exit_code("train", folder / "config.yaml", "--resume", "train.num_steps=3", *overrides)


def change_records(file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(record(99)), *lines[1:]]) + "\n")


def edit(file: Path, changes: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_moved_and_renamed_files_are_the_same_inputs(here: Path) -> None:
    (here / "train.jsonl").rename(here / "renamed.jsonl")
    (here / "teacher").rename(here / "model")
    moved = (
        f"data.train={here}/renamed.jsonl",
        f"data.tokenizer={here}/model",
        f"teacher.model={here}/model",
    )
    assert resume(here, *moved) == 0


CHANGES: dict[str, Callable[[Path], Any]] = {
    "data.train": lambda folder: change_records(folder / "train.jsonl"),
    "data.validation": lambda folder: change_records(folder / "validation.jsonl"),
    "data.template": lambda folder: edit(
        folder / "teacher/tokenizer_config.json", {"sep_token": "<|im_end|>"}
    ),
    "arch.init": lambda folder: edit(folder / "first/config.json", {"rms_norm_eps": 1e-4}),
}


@pytest.mark.parametrize("key", CHANGES)
def test_changed_inputs_are_refused_by_name(here: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    CHANGES[key](here)
    assert resume(here) == 2
    error = capsys.readouterr().err
    assert f"error: {key}: changed since the checkpoint" in error
    assert "the run has" in error


def test_a_checkpoint_of_an_older_version_warns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (here / "run/checkpoints").glob("step_2/state.json")
    document = json.loads(file.read_text())
    del document["state"]["inputs"]
    file.write_text(json.dumps(document))
    assert resume(here) == 0
    assert "does not say which inputs" in " ".join(capsys.readouterr().out.split())
