"""What the run folder keeps of a preflight: it holds as long as config, files and kdfast are the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from preflight_objects import write_project

from kdfast.config import Config
from kdfast.files import write_document
from kdfast.recipes.preflight.shown.record import (
    HOLDS_S,
    holds_text,
    input_fingerprints,
    kdfast_version,
    passed_before,
    record_skipped,
)
from kdfast.recipes.preflight.shown.result import Result, Row, Skipped, read_preflight
from kdfast.runs.folder import RunFolder


def result(config: Config, status: str = "pass", *, trains_next: bool = False) -> Result:
    row = Row(name="data.read", proves="It is read.", status=status, text="8 rows")  # type: ignore[arg-type]
    return Result(
        rows=(row,),
        seconds=1.0,
        config_fingerprint=config.fingerprint(),
        started_at=time.time() - 60,
        kdfast_version=kdfast_version(),
        inputs=input_fingerprints(config, trains_next=trains_next),
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
    assert "passed on 2" in holds_text(held)


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


def of_another_template(config: Config) -> None:
    config.data.tokenizer.joinpath("chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")


def of_other_weights(config: Config) -> None:
    path = config.data.tokenizer / "model.safetensors"
    path.write_bytes(path.read_bytes() + b" ")


def of_other_held_out_records(config: Config) -> None:
    assert config.data.validation is not None
    config.data.validation.write_text("", encoding="utf-8")


@pytest.mark.parametrize("change", [of_another_template, of_other_weights, of_other_held_out_records])
def test_changed_files_need_another(config: Config, change: Callable[[Config], None]) -> None:
    keep(config, result(config))
    change(config)
    assert passed_before(config) is None


def test_a_changed_template_file_needs_another(config: Config, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("a", encoding="utf-8")
    config = replace(config, data=replace(config.data, template=str(template)))
    keep(config, result(config))
    assert passed_before(config) is not None
    template.write_text("b", encoding="utf-8")
    assert passed_before(config) is None


def test_one_before_teaching_does_not_hold_before_training(config: Config) -> None:
    """What does not fit this machine only warned there."""
    keep(config, result(config))
    assert passed_before(config, trains_next=True) is None
    keep(config, result(config, trains_next=True))
    assert passed_before(config, trains_next=True) is not None


def test_before_training_the_answers_count(config: Config) -> None:
    out = config.data.train_files[0]
    teacher = replace(config.teacher, prompts=out.with_name("validation.jsonl"), out=out)
    config = replace(config, teacher=teacher)
    keep(config, result(config, trains_next=True))
    assert passed_before(config, trains_next=True) is not None
    out.write_bytes(out.read_bytes() + b"\n")
    assert passed_before(config, trains_next=True) is None


def test_it_holds_for_a_day(config: Config) -> None:
    keep(config, result(config))
    assert passed_before(config, now=time.time() + HOLDS_S - 120) is not None
    assert passed_before(config, now=time.time() + HOLDS_S) is None
