"""Whether a speed report is about the student that the run folder holds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from made_run import config, metrics, speed, validation_line, write_run

from kdfast.errors import DataError
from kdfast.runs.reading import read_run
from kdfast.runs.student import weights_fingerprint
from kdfast.teacher import model_fingerprint

MEASURED = 1_700_000_000.0


def run(folder: Path, report: Any = None, origin: Any = None, **files: Any) -> Path:
    """A run folder with a student; `origin` is the content of its `kdfast.json`."""
    made = write_run(folder / "run", speed=speed() if report is None else report, **files)
    student = made / "student"
    student.mkdir()
    (student / "config.json").write_text("{}")
    weights = student / "model.safetensors"
    weights.write_bytes(b"weights")
    os.utime(weights, (MEASURED - 10, MEASURED - 10))
    if origin is not None:
        (student / "kdfast.json").write_text(json.dumps(origin))
    return made


def without_step(**changes: Any) -> dict[str, Any]:
    """A report as `kdfast measure` writes it."""
    return {name: value for name, value in speed().items() if name != "step"} | {
        "measured_at": MEASURED,
        **changes,
    }


@pytest.mark.parametrize(
    ("origin", "lines", "step", "stale"),
    [
        (None, metrics(), 8, ""),
        (
            None,
            metrics(12),
            12,
            "measured at step 8, the student is of step 12",
        ),  # resumed, not measured again
        ({"step": 8, "final": "last"}, metrics(), 8, ""),
        ({"step": 4, "final": "best"}, metrics(), 4, "measured at step 8, the student is of step 4"),
        ({"step": 8, "final": "best"}, metrics(12), 8, ""),
        (None, [validation_line(1_200, 0.5)], 1200, "measured at step 8, the student is of step 1,200"),
        (None, None, None, ""),
    ],
)
def test_the_step_of_the_measurement_and_of_the_student(
    tmp_path: Path, origin: Any, lines: Any, step: int | None, stale: str
) -> None:
    read = read_run(run(tmp_path, origin=origin, metrics=lines))
    assert read.student_step == step
    assert (read.stale.reason if read.stale else "") == stale
    if read.stale:
        assert read.stale.remedy.startswith("`kdfast measure RUN --prompts FILE --out RUN/speed.json`")


@pytest.mark.parametrize(
    ("every", "remedy"),
    [
        (1, "The run has not reached its end; its next measurement replaces this one."),
        (
            0,
            "The run has not reached its end. When it has, `kdfast measure RUN --prompts FILE --out RUN/speed.json`",
        ),
    ],
)
def test_a_run_that_goes_on(tmp_path: Path, every: int, remedy: str) -> None:
    made = write_run(tmp_path / "run", metrics=metrics(9), config=config(speed__every_validations=every))
    stale = read_run(made).stale
    assert stale is not None
    assert stale.reason == "measured at step 8, the student is of step 9"
    assert stale.remedy.startswith(remedy)


def test_a_report_without_a_step_is_held_against_the_weights(tmp_path: Path) -> None:
    made = run(tmp_path, without_step())
    weights = made / "student" / "model.safetensors"
    assert read_run(made).stale is None  # the weights are older
    os.utime(weights, (MEASURED + 10, MEASURED + 10))
    stale = read_run(made).stale
    assert stale is not None
    assert stale.reason == "measured before the student of step 8 was saved"
    prints = {"fingerprints": {"model": weights_fingerprint(made / "student")}}
    (made / "speed.json").write_text(json.dumps(without_step(**prints)))
    assert read_run(made).stale is None  # only a copy: the weights are those that were measured
    weights.write_bytes(b"trained on")
    os.utime(weights, (time.time(), time.time()))
    assert read_run(made).stale is not None


@pytest.mark.parametrize("report", [without_step(measured_at=None), without_step()])
def test_nothing_to_hold_it_against(tmp_path: Path, report: dict[str, Any]) -> None:
    made = run(tmp_path, report)
    if report["measured_at"] is not None:
        (made / "student" / "model.safetensors").unlink()
    assert read_run(made).stale is None


def test_the_fingerprint_is_that_of_reports(tmp_path: Path) -> None:
    student = run(tmp_path) / "student"
    assert weights_fingerprint(student) == model_fingerprint(student)


@pytest.mark.parametrize(
    ("origin", "told"),
    [({}, "step is missing"), ({"step": "8"}, "step must be a number"), ([], "must be an object")],
)
def test_a_damaged_origin_is_named(tmp_path: Path, origin: Any, told: str) -> None:
    made = run(tmp_path, origin={"step": 8})
    (made / "student" / "kdfast.json").write_text(json.dumps(origin))
    with pytest.raises(DataError, match=rf"kdfast\.json: .*{told}"):
        read_run(made)
