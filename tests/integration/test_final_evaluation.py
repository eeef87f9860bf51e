"""The evaluations before and after training: intervals and quality in the files, one table on the screen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Finished, run_command
from tiny_run import write_config

from kdfast.data import KDDataset
from kdfast.errors import DataError
from kdfast.recipes.loaded_model import load
from kdfast.recipes.requests import Settings
from kdfast.recipes.train.evaluation import choose_prompts
from kdfast.speed import prompts_fingerprint, speed_prompts, truth_fingerprint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("evaluated")
    write_config(directory)
    return directory


def train(folder: Path, run: Path, *overrides: str) -> Finished:
    settings = (
        "kd.kl_weight=0",
        "kd.ce_truth_weight=1",
        "train.num_steps=2",
        "train.validate_every_steps=0",
        "train.eval_prompts=3",
        "train.eval_irrelevance_prompts=2",
        "train.eval_max_new_tokens=4",
        "speed.every_validations=0",
        f"io.run_dir={run}",
    )
    return run_command("train", folder / "config.yaml", *settings, *overrides)


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[Path, str]:
    """A run that is done and what it showed. To change something, take a copy."""
    done = train(folder, folder / "trained")
    assert done.returncode == 0, done.stderr
    return folder / "trained", done.stdout


@pytest.fixture
def copy(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """The same run in a folder of the test's own."""
    return shutil.copytree(trained[0], tmp_path / "run")


def read(run: Path, when: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"evaluation_{when}.json").read_text())
    return found


def test_both_evaluations_have_intervals_and_quality(folder: Path, trained: tuple[Path, str]) -> None:
    run, shown = trained
    assert shown.count("Tool calls, by generation (with 95 % intervals)") == 1
    assert "0/3 0 % (0 to 0)" in shown
    data = KDDataset(
        folder / "validation.jsonl", folder / "teacher", shapes=[512], template="hermes", threads=1
    )
    known = {prompt.line: prompt for prompt in speed_prompts(data)}
    asked = [known[line] for line in (1, 2, 3, 4, 8)]
    settings = Settings(prompts=folder / "validation.jsonl", template="hermes", device="cpu")
    saved = load(run, settings)
    for when, step in (("before", 0), ("after", 2)):
        found = read(run, when)
        assert (found["kind"], found["step"], found["prompts"]) == ("kdfast.evaluation", step, 5)
        assert found["table"]["missed_calls"] == {
            "count": 3, "total": 3, "fraction": 1.0, "low": 1.0, "high": 1.0,
        }  # fmt: skip
        assert found["quality"]["f1"]["per_prompt"] == [[0, 0, 1]] * 3 + [[0, 0, 0]] * 2
        assert found["quality"]["false_call_rate"]["per_prompt"] == [0, 0]
        assert found["length"]["ratio"]["count"] == 5
        assert (found["decoding"]["mode"], found["decoding"]["max_new_tokens"]) == ("free", 4)
        # answers end where those of the saved student will
        assert found["decoding"]["eos_ids"] == list(saved.options.eos_ids) == data.turn_end_ids[-1:]
        assert found["fingerprints"] == {
            "prompts": prompts_fingerprint(asked),
            "truth": truth_fingerprint(asked),
        }
        assert [answer["score"]["should_call"] for answer in found["answers"]] == [True] * 3 + [False] * 2


def test_a_resumed_run_keeps_the_first_evaluation(folder: Path, copy: Path) -> None:
    before = read(copy, "before")
    assert train(folder, copy, "--resume", "train.num_steps=3").returncode == 0
    assert read(copy, "before") == before
    assert read(copy, "after")["step"] == 3


@pytest.mark.parametrize("damage", ['{"step": 0, "tab', "[]", "\x00"])
def test_a_damaged_file_is_named(folder: Path, copy: Path, damage: str) -> None:
    (copy / "evaluation_before.json").write_text(damage)
    failed = train(folder, copy, "--resume", "train.num_steps=3")
    assert failed.returncode == 2
    assert "evaluation_before.json" in failed.stderr
    assert "remove it" in failed.stderr


def test_prompts_are_the_first_of_each_kind(folder: Path) -> None:
    data = KDDataset(folder / "validation.jsonl", folder / "teacher", shapes=[512], threads=1)
    prompts = choose_prompts(data, 4, 2)
    assert [prompt.line for prompt in prompts] == [1, 2, 3, 5, 4, 8]
    with pytest.raises(DataError, match=r"train\.eval_prompts asks for more .* \(9\): 10"):
        choose_prompts(data, 10, 0)
