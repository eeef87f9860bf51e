"""The checks of calls: each passes on a clean project, and catches its fault."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from preflight_objects import assert_only_fails, clean, look
from preflight_rows import any_row, break_row, calls, rows_of, write

from kdfast.recipes.preflight.checks_calls import (
    CHECKS,
    arguments_come_from_the_prompt,
    calls_fit_their_schemas,
    calls_said_are_found,
    names_are_not_misspelt,
)
from kdfast.recipes.preflight.looking.answers import raw_records
from kdfast.recipes.preflight.looking.derived_fields import (
    required_fields_present_is_right,
    teacher_mask_is_right,
    teacher_prefix_is_right,
    tool_should_be_used_is_right,
)
from kdfast.recipes.preflight.made.objects import Objects

Json = dict[str, Any]


def calling(number: int = 0, **arguments: Any) -> Json:
    """A record whose answer is a call with these arguments."""
    record = tiny_run.record(4 * number)
    call = {"name": "get_weather", "arguments": {"city": "Rome", **arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}
    record.pop("teacher_text", None)
    return record | {"truth_message": message}


def flip_due(row: Json) -> None:
    row["tool_should_be_used"] = not row["tool_should_be_used"]


def flip_required(row: Json) -> None:
    row["required_fields_present"] = not row["required_fields_present"]


def shift_prefix(row: Json) -> None:
    row["teacher_prefix_ids"] = row["teacher_prefix_ids"][1:]


def invent_mask(row: Json) -> None:
    row["teacher_attention_mask"] = np.ones(len(row["ids"]), dtype=np.uint8)


def shorten_teacher(row: Json) -> None:
    row["teacher_length"] -= 1


def drop_spans(row: Json) -> None:
    row["spans"]["tool_call"] = row["spans"]["tool_call"][:0]


def move_spans(row: Json) -> None:
    row["spans"]["tool_call"] = row["spans"]["tool_call"] + np.array([[0, -36]])


def says_false(row: Json) -> bool:
    """The first row whose record says that no call is due."""
    return not row["tool_should_be_used"] and row["source"] == 1


@pytest.mark.parametrize(
    ("name", "which", "change", "words"),
    [
        ("data.tool_should_be_used", calls, flip_due, "is False, and derived from its answer it is True"),
        ("data.tool_should_be_used", says_false, flip_due, "is True, and the record carries False"),
        ("data.required_fields_present", calls, flip_required, "is False, and derived"),
        ("data.teacher_prefix_ids", calls, shift_prefix, "teacher_prefix_ids is ["),
        ("data.teacher_attention_mask", any_row, invent_mask, "derived from its answer it is None"),
        ("data.teacher_attention_mask", any_row, shorten_teacher, "teacher_length is"),
        ("data.calls_said_are_found", calls, drop_spans, "1 calls are in the answer, and the row marks 0"),
        ("data.calls_said_are_found", calls, move_spans, "as the call of get_weather"),
    ],
)
def test_a_broken_row_is_caught(
    name: str, which: Callable[[Json], bool], change: Callable[[Json], None], words: str
) -> None:
    finding = assert_only_fails(name, break_row(which, change))
    assert words in finding.text
    assert "train.jsonl:" in finding.text
    assert finding.remedy


def another_call_is_said(folder: Path) -> Objects:
    """The records say another city than the tokens have."""
    rows = clean().get("sample_rows")
    records = list(raw_records(rows).values())
    texts = [
        json.dumps(record).replace('"arguments": {"city": "', '"arguments": {"city": "New ')
        for record in records
    ]
    other = copy.copy(rows)
    other.paths = (write(folder / "train.jsonl", list(map(json.loads, texts))),)
    return clean().replaced(
        sample_rows=other,
        **{name: clean().get(name) for name in ("sampled", "train_rows", "batches", "objective")},
    )


def no_call_is_valid(folder: Path) -> Objects:
    """As the clean project, but for the arguments: days as text."""
    records = [tiny_run.record(number) for number in range(48)]
    for record in records:
        for call in record["truth_message"].get("tool_calls", []):
            call["function"]["arguments"]["days"] = "three"
    return clean().replaced(train_rows=rows_of(folder, records, invalid_calls="keep"))


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("data.calls_said_are_found", another_call_is_said, "in its text are found"),
        ("data.calls_fit_their_schemas", no_call_is_valid, ": 0 of 36 answers with calls fit"),
    ],
)
def test_a_broken_file_is_caught(
    name: str, fault: Callable[[Path], Objects], words: str, tmp_path: Path
) -> None:
    assert words in assert_only_fails(name, fault(tmp_path)).text


def one_call_is_invalid() -> list[Json]:
    return [calling(0), calling(1, days="three"), calling(2)]


def values_come_from_nowhere() -> list[Json]:
    return [
        calling(number) | {"messages": [{"role": "user", "content": "Weather, please"}]}
        for number in range(3)
    ]


def a_parameter_is_misspelt() -> list[Json]:
    record = calling(0)
    tool = copy.deepcopy(record["tools"][0])
    tool["function"]["parameters"]["properties"]["ctiy"] = {"type": "string"}
    return [record | {"tools": [tool]}]


def an_argument_is_misspelt() -> list[Json]:
    return [calling(0, dayz=3)]


@pytest.mark.parametrize(
    ("name", "records", "words"),
    [
        ("data.calls_fit_their_schemas", one_call_is_invalid, "2 of 3 answers with calls fit"),
        ("data.arguments_come_from_the_prompt", values_come_from_nowhere, "0 of 3 texts in arguments (0%)"),
        (
            "data.names_are_not_misspelt",
            a_parameter_is_misspelt,
            "parameters 'city' and 'ctiy' of 'get_weather'",
        ),
        ("data.names_are_not_misspelt", an_argument_is_misspelt, "argument 'dayz' of a call"),
    ],
)
def test_what_may_be_meant_is_a_warning(
    name: str, records: Callable[[], list[Json]], words: str, tmp_path: Path
) -> None:
    finding = look(name, clean().replaced(train_rows=rows_of(tmp_path, records(), invalid_calls="keep")))
    assert (finding.status, words in finding.text) == ("warn", True), finding
    assert finding.remedy


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_a_clean_project_passes(name: str) -> None:
    finding = look(name, clean())
    assert finding.status == "pass", finding


def test_carried_fields_are_compared_with_the_record(tmp_path: Path) -> None:
    record = calling(0) | {
        "tool_should_be_used": False,
        "required_fields_present": False,
        "teacher_prefix_ids": [5, 6],
        "teacher_topk": None,
    }
    rows = rows_of(tmp_path, [record])
    length = rows.store.row(0)["response_length"]
    rows = rows_of(tmp_path / "masked", [record | {"teacher_attention_mask": [1] * (length - 1) + [0]}])
    sampled = [rows.store.row(0)]
    assert sampled[0]["teacher_length"] == length - 1
    config = clean().get("config")
    found = [
        tool_should_be_used_is_right(rows, sampled),
        required_fields_present_is_right(rows, sampled),
        teacher_prefix_is_right(config, rows, sampled),
        teacher_mask_is_right(rows, sampled),
    ]
    assert [one.text for one in found] == ["1 rows: loaded from 1, derived for 0, all right"] * 4


def test_a_truth_beside_a_teachers_answer_derives_its_own_prefix(tmp_path: Path) -> None:
    record = calling(0) | {"teacher_text": "I think so.", "teacher_prefix_ids": [5, 6]}
    rows = rows_of(tmp_path, [record])
    sampled = [rows.store.row(index) for index in range(2)]
    assert sampled[0]["teacher_prefix_ids"].tolist() == [5, 6]
    assert len(sampled[1]["teacher_prefix_ids"]) > 2
    assert teacher_prefix_is_right(clean().get("config"), rows, sampled).status == "pass"


def test_an_old_function_call_and_text_arguments_are_read(tmp_path: Path) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    record = calling(0) | {"truth_message": {"role": "assistant", "content": None, "function_call": call}}
    rows = rows_of(tmp_path, [record])
    finding = calls_said_are_found(rows, [rows.store.row(0)])
    assert (finding.status, "the messages say 1" in finding.text) == ("pass", True)


def test_without_calls_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    record = tiny_run.record(3)
    del record["tools"]
    rows = rows_of(tmp_path, [record])
    found = [
        calls_said_are_found(rows, [rows.store.row(0)]),
        calls_fit_their_schemas(rows),
        arguments_come_from_the_prompt(rows),
        names_are_not_misspelt(rows),
    ]
    assert [one.status for one in found] == ["skip"] * 4
