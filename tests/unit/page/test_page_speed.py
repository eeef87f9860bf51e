"""The section on speed, against files made by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from made_run import (
    config,
    metric,
    metrics,
    speed,
    speed_line,
    write_run,
)

from kdfast.errors import DataError
from kdfast.page import Missing, Node
from kdfast.page.history import History, read_history
from kdfast.page.speed import speed_section
from kdfast.runs.reading import read_run


def history_of(lines: list[dict[str, Any]]) -> History:
    return read_history(
        [Node(line, "metrics.jsonl", "remove it", number) for number, line in enumerate(lines, 1)]
    )


def test_speed_with_its_infinities(tmp_path: Path) -> None:
    section = speed_section(read_run(write_run(tmp_path / "run")), history_of(metrics()))
    action = section.metrics["ttfa_tokens"]
    assert (action.count, action.infinite, action.tail[1]) == (24, 2, math.inf)
    assert math.isfinite(action.median)
    assert section.metrics["tps"].tail[1] <= section.metrics["tps"].tail[0] <= section.metrics["tps"].median
    assert len(section.charts) == 3
    assert "never: 2 of 24 (8.3 %)" in section.charts[1]
    assert section.absent == [("no prompt that needs a call has a ground truth", "ttfa_overhead_tokens")]
    assert section.warnings == []
    assert len(section.history) == 3
    assert section.stale is None


def test_few_prompts_are_told(tmp_path: Path) -> None:
    section = speed_section(read_run(write_run(tmp_path / "run", speed=speed(4, 4))), history_of([]))
    assert section.warnings == ["Only 4 prompts: p90 and p95 are about the slowest."]
    assert section.metrics["ttfa_tokens"].median == math.inf
    assert section.history == []


def test_other_work_on_the_machine_is_told(tmp_path: Path) -> None:
    hardware = {"key": "cpu", "cores": 2.0, "load_average": [6.25, 3.0, 1.0]}
    section = speed_section(
        read_run(write_run(tmp_path / "run", speed=speed() | {"hardware": hardware})), history_of([])
    )
    assert section.warnings == [
        "Other work ran on this machine (load 6.25 on 2 cores): times are longer than they would be."
    ]


def test_cut_and_never_are_told_apart(tmp_path: Path) -> None:
    section = speed_section(read_run(write_run(tmp_path / "run", speed=speed(8, 1, cut=5))), history_of([]))
    action = section.metrics["ttfa_tokens"]
    assert (action.infinite, action.never, action.cut) == (6, 1, 5)
    assert action.text(action.median) == "no call"
    assert "never: 1 of 8 (12 %); cut: 5 of 8 (62 %)" in section.charts[1]


def test_the_share_of_cut_answers_over_the_steps(tmp_path: Path) -> None:
    lines = [speed_line(step, never=3) | {"ttfa_tokens.cut": 2.0 * (step > 0)} for step in (0, 4)]
    section = speed_section(read_run(write_run(tmp_path / "run")), history_of(lines))
    assert "no call at step 4: 75 %" in section.history[2]
    assert "of these cut at the limit at step 4: 50 %" in section.history[2]


def older(ended: list[bool] | None) -> dict[str, Any]:
    """A report without the counts of cut answers; `ended` is in its prompts, the first of which acted."""
    made = speed(3, 2)
    for name in ("ttfa_tokens", "ttfa_ms"):
        del made["metrics"][name]["cut"]
    if ended is not None:
        values = [30.0, None, None]
        made["prompts"] = [
            {"needs_call": True, "ended": end, "ttfa_tokens": value, "ttfa_ms": value}
            for end, value in zip(ended, values, strict=True)
        ] + [{"needs_call": False, "ended": False}]
    return made


@pytest.mark.parametrize(
    ("ended", "cut", "word"),
    [
        ([False, True, True], 0, "never"),
        ([True, False, False], 2, "cut"),
        ([True, True, False], 1, "no call"),
        (None, None, "no call"),
    ],
)
def test_an_older_report_tells_it_by_its_prompts(
    tmp_path: Path, ended: list[bool] | None, cut: int | None, word: str
) -> None:
    section = speed_section(read_run(write_run(tmp_path / "run", speed=older(ended))), history_of([]))
    action = section.metrics["ttfa_tokens"]
    assert (action.cut, action.text(action.median)) == (cut, word)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "other"}, "kind must be 'kdfast.speed_report'"),
        ({"metrics": {"ttft_ms": metric("ms", [1.0]) | {"p50": None}}}, "metrics.ttft_ms.p50 is missing"),
        (
            {"metrics": {"ttft_ms": metric("ms", [1.0]) | {"samples": ["x"]}}},
            "metrics.ttft_ms.samples.0 must be a number",
        ),
        (
            {"metrics": {"ttft_ms": metric("ms", [1.0]) | {"infinite": 2}}},
            "metrics.ttft_ms.infinite must be at most",
        ),
        (
            {"metrics": {"ttfa_ms": metric("ms", [1.0, math.inf], cut=2)}},
            "metrics.ttfa_ms.cut must be at most the number of infinite samples (1)",
        ),
        ({"hardware": {}}, "hardware.key is missing"),
        ({"metrics": []}, "metrics must be an object"),
    ],
)
def test_a_damaged_speed_report_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as error:
        speed_section(read_run(write_run(tmp_path / "run", speed=speed() | change)), history_of([]))
    assert f"speed.json: {told}" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"speed__every_validations": 0}, "speed.every_validations is 0"),
        ({"data__validation": None, "train__eval_prompts": 0}, "no validation data"),
        ({}, "no validation has ended yet"),
    ],
)
def test_why_there_is_no_speed(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    section = speed_section(
        read_run(write_run(tmp_path / "run", speed=None, config=config(**changes))), history_of([])
    )
    assert isinstance(section.missing, Missing)
    assert told in section.missing.reason
    assert "kdfast measure" in section.missing.reason
