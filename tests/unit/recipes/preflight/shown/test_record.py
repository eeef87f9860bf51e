"""What the run folder keeps of a preflight: it holds as long as config, files and kdfast are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from preflight_objects import write_project

from kdfast.config import Config
from kdfast.files import write_document
from kdfast.recipes.preflight.shown.record import (
    holds_text,
    input_fingerprints,
    kdfast_version,
    passed_before,
    record_skipped,
)
from kdfast.recipes.preflight.shown.result import Result, Row, Skipped, read_preflight
from kdfast.runs.folder import RunFolder


def result(config: Config, status: str = "pass") -> Result:
    row = Row(name="data.read", proves="It is read.", status=status, text="8 rows")  # type: ignore[arg-type]
    return Result(
        rows=(row,),
        seconds=1.0,
        config_fingerprint=config.fingerprint(),
        started_at=0.0,
        kdfast_version=kdfast_version(),
        inputs=input_fingerprints(config),
    )


def keep(config: Config, kept: Result) -> None:
    write_document(RunFolder(config.io.run_dir).preflight, kept.to_json())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return write_project(tmp_path)


def test_one_that_passed_holds(config: Config) -> None:
    assert passed_before(config) is None
    keep(config, result(config))
    held = passed_before(config)
    assert held is not None
    assert "passed on 1" in holds_text(held)


def test_one_that_failed_does_not_hold(config: Config) -> None:
    keep(config, result(config, "fail"))
    assert passed_before(config) is None


def test_another_config_needs_another(config: Config) -> None:
    keep(config, result(config))
    assert passed_before(replace(config, train=replace(config.train, seed=9))) is None


def test_another_kdfast_needs_another(config: Config) -> None:
    keep(config, replace(result(config), kdfast_version="0.0.1"))
    assert passed_before(config) is None


def test_changed_records_need_another(config: Config) -> None:
    keep(config, result(config))
    with config.data.train_files[0].open("ab") as file:
        file.write(b"\n")
    assert passed_before(config) is None


def test_a_damaged_record_counts_as_none(config: Config) -> None:
    path = RunFolder(config.io.run_dir).preflight
    keep(config, result(config))
    path.write_text(path.read_text(encoding="utf-8")[:40], encoding="utf-8")
    assert passed_before(config) is None


def test_the_answers_that_are_still_to_come_are_no_input(config: Config) -> None:
    out = config.data.train_files[0]
    teacher = replace(config.teacher, prompts=out.with_name("validation.jsonl"), out=out)
    assert "data.train 0" not in input_fingerprints(replace(config, teacher=teacher))
    assert "teacher.prompts" in input_fingerprints(replace(config, teacher=teacher))


def test_that_it_was_left_out_is_written_down(config: Config) -> None:
    record_skipped(config, "kdfast teach --no-preflight")
    found = read_preflight(RunFolder(config.io.run_dir).preflight)
    assert isinstance(found, Skipped)
    assert (found.command, found.config_fingerprint) == ("kdfast teach --no-preflight", config.fingerprint())
    assert passed_before(config) is None


def test_one_that_holds_is_not_overwritten_by_leaving_it_out(config: Config) -> None:
    keep(config, result(config))
    before = json.loads(RunFolder(config.io.run_dir).preflight.read_text(encoding="utf-8"))
    record_skipped(config, "kdfast teach --no-preflight")
    assert json.loads(RunFolder(config.io.run_dir).preflight.read_text(encoding="utf-8")) == before
