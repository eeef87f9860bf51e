"""The sample: some of every kind, always the same, and the lines as they are written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from preflight_objects import clean, objects_of, write_project

from kdfast.config import ApiConfig, PriceConfig
from kdfast.errors import ConfigError
from kdfast.recipes.preflight.made.sample import BESIDE, HELD_OUT, RECORDS, draw_sample, spread


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 20), st.integers(0, 3))
def test_spread_takes_every_kind_in_turn(kinds: list[int], count: int, seed: int) -> None:
    chosen = spread(kinds, count, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(kinds))
    assert chosen == spread(kinds, count, seed)
    taken = {kind: sum(kinds[index] == kind for index in chosen) for kind in set(kinds)}
    for kind, number in taken.items():
        # a kind may have fewer than another only if there are no more of it, or by the one of the last round
        assert number >= min(kinds.count(kind), max(taken.values()) - 1)


def test_the_sample_has_every_shape_source_and_kind_of_answer() -> None:
    sample = clean().get("sample")
    assert (len(sample.records), len(sample.held_out), sample.asked) == (RECORDS, HELD_OUT, False)
    rows = [clean().get("written_rows").store.row(index) for index in range(sample.of)]
    lines = {line for _, line in sample.lines}
    there = [row for row in rows if row["line"] in lines]
    assert {bool(row["tool_should_be_used"]) for row in there} == {True, False}
    assert {int(row["source"]) for row in there} == {0, 1}


def test_lines_are_copied_as_they_are(tmp_path: Path) -> None:
    config = write_project(tmp_path)
    path = config.data.train_files[0]
    lines = path.read_text(encoding="utf-8").splitlines()
    odd = json.loads(lines[0]) | {"metadata": {"large": 2**70, "text": "a\u2028b é"}}
    lines[0] = json.dumps(odd, ensure_ascii=False) + " "
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines[:12]).encode() + b"\r\n\r\n")
    sample = objects_of(config, tmp_path / "work").get("sample")
    assert len(sample.texts) == 12
    assert sample.texts[0] == lines[0]
    assert sample.records[0]["metadata"]["large"] == 2**70
    assert [line for _, line in sample.lines] == list(range(1, 13))


def test_prompts_are_drawn_if_nobody_has_answered(tmp_path: Path) -> None:
    config = write_project(tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    records = [tiny_run.record(number) for number in range(30)]
    for record in records:
        record.pop("teacher_text", None)
    prompts.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    out = tmp_path / "answers.jsonl"
    asked = replace(
        config,
        data=replace(config.data, train=out),
        teacher=replace(config.teacher, prompts=prompts, out=out),
    )
    sample = objects_of(asked, tmp_path / "work").get("sample")
    assert (sample.asked, sample.of, len(sample.records)) == (True, 30, RECORDS)
    assert {path for path, _ in sample.lines} == {prompts}


def test_nothing_to_draw_from_says_what_to_do(tmp_path: Path) -> None:
    config = write_project(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.train: not written yet.*teacher\.prompts"):
        draw_sample(config, False, None, None)


def test_prompts_are_drawn_as_long_as_some_are_not_answered(tmp_path: Path) -> None:
    """After a probe, a limit or a budget: the few answers do not stand for the rest."""
    config = write_project(tmp_path)
    prompts, out, seed = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl", config.data.train_files[0]
    lines = [json.dumps(tiny_run.record(number) | {"teacher_text": None}) for number in range(30)]
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tiny_run.write_records(out, range(2))
    asked = replace(
        config,
        arch=replace(config.arch, init=str(tmp_path / "teacher")),
        data=replace(config.data, train=(seed, out)),
        teacher=replace(config.teacher, kind="api", model=None, store=None, prompts=prompts, out=out),
        api=ApiConfig(base_url="http://127.0.0.1:9/v1", model="m", key_from_env=None),
        price=PriceConfig(free=True),
    )
    objects = objects_of(asked, tmp_path / "work")
    assert objects.get("unanswered") is True
    sample = objects.get("sample")
    assert (sample.asked, sample.of, len(sample.beside_texts)) == (True, 30, BESIDE)
    assert {path for path, _ in sample.lines} == {prompts}
    written = seed.read_text(encoding="utf-8").splitlines()
    assert set(sample.beside_texts) <= set(written)


def test_once_all_are_answered_the_answers_are_drawn(tmp_path: Path) -> None:
    config = write_project(tmp_path)
    out = config.data.train_files[0]
    local = replace(config, teacher=replace(config.teacher, prompts=tmp_path / "validation.jsonl", out=out))
    objects = objects_of(local, tmp_path / "work")
    assert (objects.get("unanswered"), objects.get("sample").asked) == (False, False)
