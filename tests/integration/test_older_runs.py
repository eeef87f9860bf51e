"""What the version before the recipes wrote still opens: a run folder, a teacher store, a checkpoint.

`tests/data/before_recipes` was made by commit 5073495: a tiny teacher, records, the teacher's store, and a run of two
steps. `expected.json` has the two steps that that version took when it went on.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import exit_code

import golden

OLD = Path(__file__).parents[1] / "data" / "before_recipes"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current directory: its paths are relative."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    return folder


def test_the_run_is_reported(old: Path) -> None:
    assert exit_code("report", "run") == 0
    page = (old / "run" / "report.html").read_text(encoding="utf-8")
    assert "divergence from the teacher" in page
    assert "length-aware loss" in page


def test_the_teacher_store_is_used_no_row_is_scored_twice(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store,) = (old / "store").glob("*.teacher.arrow")
    before = store.read_bytes()
    assert exit_code("teach", "config.yaml") == 0
    assert " 0 of them to be scored" in capsys.readouterr().out
    assert store.read_bytes() == before


def test_the_run_goes_on_from_its_checkpoint_with_the_same_losses(old: Path) -> None:
    saved = (old / "run" / "config.yaml").read_text(encoding="utf-8")
    assert "fused: true" in saved  # a key that is gone
    # the config names no template: the default of then was hermes, and the run is not to change without a word
    assert exit_code("train", "config.yaml", "--resume", "train.num_steps=4") == 2
    assert exit_code("train", "config.yaml", "--resume", "train.num_steps=4", "data.template=hermes") == 0
    lines = [json.loads(line) for line in (old / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "train" and line["step"] > 2]
    wanted: list[dict[str, Any]] = json.loads((old / "expected.json").read_text(encoding="utf-8"))
    golden.assert_steps(steps, wanted, exact=False)
    # the average that opens the length loss's hinge was taken up, and is written in the new place
    state = json.loads((old / "run" / "checkpoints" / "step_4" / "state.json").read_text("utf-8"))["state"]
    assert state["terms"]["length"]["average"] == pytest.approx(1.598281879901886, rel=1e-5)
    assert "length_average" not in state


def test_the_student_is_evaluated(old: Path) -> None:
    out = old / "evaluation.json"
    assert exit_code("eval", "run", "--limit", "1", "--max-new-tokens", "2", "--out", str(out)) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["prompts"] == 1
