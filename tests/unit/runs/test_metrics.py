"""The metrics file: each step once, also after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdfast.errors import DataError
from kdfast.runs.metrics import MetricsLog, cut_metrics, read_metrics


def write(path: Path, *steps: int) -> None:
    with MetricsLog(path) as log:
        for step in steps:
            log.write("train", step, {"loss": float(step)})


def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3, 4)
    cut_metrics(path, 2)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    write(path, 3)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]


def test_a_torn_last_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    with path.open("a") as file:
        file.write('{"step": 3, "ki')
    with pytest.raises(DataError, match=r"metrics\.jsonl:3"):
        read_metrics(path)
    cut_metrics(path, 9)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_numbers_that_are_not_finite_are_named_not_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write("validation", 5, {"loss": float("nan"), "kl": 0.5, "norm": float("inf")})
    line = json.loads(path.read_text())
    assert line == {"step": 5, "kind": "validation", "kl": 0.5, "not_finite": ["loss", "norm"]}


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path / "metrics.jsonl", tensorboard=True) as log:
        log.write("train", 1, {"loss": 0.5})
        log.write("train", 2, {"loss": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl", write=False) as log:
        log.write("train", 1, {"loss": 0.5})
    assert not (tmp_path / "metrics.jsonl").exists()
