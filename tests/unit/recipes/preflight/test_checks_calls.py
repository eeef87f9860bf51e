"""The checks of calls: each passes on a clean project, and catches its fault."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from preflight_objects import assert_only_fails, clean, look
from preflight_rows import any_row, break_row, calls, rows_of, write

from kdfast.data import KDDataset
from kdfast.recipes.preflight.checks_calls import (
    CHECKS,
    arguments_come_from_the_prompt,
    calls_fit_their_schemas,
    calls_said_are_found,
    names_are_not_misspelt,
)
from kdfast.recipes.preflight.facts import Sample
from kdfast.recipes.preflight.looking.answers import raw_records
from kdfast.recipes.preflight.looking.derived_fields import (
    labels_agree_with_truths,
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


def drawn_from(rows: KDDataset) -> Sample:
    """All records of the file, as a sample."""
    records = tuple(raw_records(rows).values())
    lines = tuple((rows.paths[0], number) for number in range(1, len(records) + 1))
    return Sample(records=records, lines=lines, held_out=(), of=len(records), asked=False)


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


def most_labels_are_inverted(folder: Path) -> Objects:
    """Of 48 truths that carry a call or a label, 25 contradict it."""
    records = [tiny_run.record(number) for number in range(48)]
    for record in records[:25]:
        record["tool_should_be_used"] = "tool_calls" not in record["truth_message"]
    return clean().replaced(train_rows=rows_of(folder, records))


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("data.calls_said_are_found", another_call_is_said, "in its text are found"),
        ("data.calls_fit_their_schemas", no_call_is_valid, ": 0 of 36 answers with calls fit"),
        ("data.labels_agree_with_truths", most_labels_are_inverted, "25 of 48 with a call or a label"),
    ],
)
def test_a_broken_file_is_caught(
    name: str, fault: Callable[[Path], Objects], words: str, tmp_path: Path
) -> None:
    assert words in assert_only_fails(name, fault(tmp_path)).text


def one_call_is_invalid() -> list[Json]:
    return [calling(0), calling(1, days="three"), calling(2)]


def text(number: int = 0, **keys: Any) -> Json:
    """A record whose answer is a text."""
    record = tiny_run.record(4 * number + 3) | keys
    return {key: value for key, value in record.items() if value is not None}


def one_label_is_wrong() -> list[Json]:
    """Of four truths three carry a call or a label."""
    return [calling(0), calling(1), text(0, tool_should_be_used=True), text(1, tool_should_be_used=None)]


def half_of_the_labels_are_wrong() -> list[Json]:
    return [calling(0, days=2) | {"tool_should_be_used": False}, text(0), text(1, tool_should_be_used=None)]


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
        ("data.labels_agree_with_truths", one_label_is_wrong, "1 of 3 with a call or a label contradict"),
        ("data.labels_agree_with_truths", half_of_the_labels_are_wrong, "1 of 2 with a call or a label"),
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
    sampled, drawn = [rows.store.row(0)], drawn_from(rows)
    assert sampled[0]["teacher_length"] == length - 1
    config = clean().get("config")
    found = [
        tool_should_be_used_is_right(rows, sampled, drawn),
        required_fields_present_is_right(rows, sampled, drawn),
        teacher_prefix_is_right(config, rows, sampled, drawn),
        teacher_mask_is_right(rows, sampled, drawn),
    ]
    assert [one.text for one in found] == ["1 rows: loaded from 1, derived for 0, all right"] * 4


def test_a_truth_beside_a_teachers_answer_derives_its_own_prefix(tmp_path: Path) -> None:
    record = calling(0) | {"teacher_text": "I think so.", "teacher_prefix_ids": [5, 6]}
    rows = rows_of(tmp_path, [record])
    sampled = [rows.store.row(index) for index in range(2)]
    assert sampled[0]["teacher_prefix_ids"].tolist() == [5, 6]
    assert len(sampled[1]["teacher_prefix_ids"]) > 2
    assert teacher_prefix_is_right(clean().get("config"), rows, sampled, drawn_from(rows)).status == "pass"


def test_an_old_function_call_and_text_arguments_are_read(tmp_path: Path) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    record = calling(0) | {"truth_message": {"role": "assistant", "content": None, "function_call": call}}
    rows = rows_of(tmp_path, [record])
    finding = calls_said_are_found(rows, [rows.store.row(0)], drawn_from(rows))
    assert (finding.status, "the messages say 1" in finding.text) == ("pass", True)


def test_without_calls_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    record = tiny_run.record(3)
    del record["tools"]
    rows = rows_of(tmp_path, [record])
    found = [
        calls_said_are_found(rows, [rows.store.row(0)], drawn_from(rows)),
        calls_fit_their_schemas(rows, drawn_from(rows)),
        arguments_come_from_the_prompt(rows, drawn_from(rows)),
        names_are_not_misspelt(rows, drawn_from(rows)),
    ]
    assert [one.status for one in found] == ["skip"] * 4


def test_inverted_labels_fail_and_name_lines(tmp_path: Path) -> None:
    records = [calling(0), calling(1), text(0), text(1)]
    for record in records:
        record["tool_should_be_used"] = "tool_calls" not in record["truth_message"]
    rows = rows_of(tmp_path, records)
    finding = labels_agree_with_truths(rows, drawn_from(rows))
    assert (finding.status, "4 of 4 with a call or a label" in finding.text) == ("fail", True), finding
    first = "train.jsonl:1: the ground truth calls a tool, and tool_should_be_used is false"
    last = "train.jsonl:4: the ground truth calls no tool, and tool_should_be_used is true"
    assert (finding.shown[0], finding.shown[3]) == (first, last)


def test_a_teachers_answer_may_differ_from_the_label(tmp_path: Path) -> None:
    record = text(0) | {"teacher_text": "No.", "tool_should_be_used": True}
    del record["truth_message"]
    rows = rows_of(tmp_path, [record])
    assert labels_agree_with_truths(rows, drawn_from(rows)).status == "skip"
    rows = rows_of(tmp_path / "both", [calling(0) | {"teacher_text": "No.", "tool_should_be_used": True}])
    assert labels_agree_with_truths(rows, drawn_from(rows)).status == "pass"


def test_places_are_those_of_the_users_own_files() -> None:
    rows, sample = clean().get("sample_rows"), clean().get("sample")
    sampled = [copy.deepcopy(row) for row in clean().get("sampled")]
    sampled[-1]["tool_should_be_used"] ^= True
    line = rows.place(int(rows.rows[-1]))[1]
    path, own = sample.lines[line - 1]
    assert own != line, "the sample's last record has the same line in both files: nothing is shown"
    finding = tool_should_be_used_is_right(rows, sampled, sample)
    assert finding.text.startswith(f"{path.name}:{own}: ")


def test_places_of_answers_are_those_of_their_prompts(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [calling(0), calling(1) | {"tool_should_be_used": False}])
    lines = ((Path("asked.jsonl"), 7), (Path("asked.jsonl"), 9))
    sample = replace(drawn_from(rows), asked=True, lines=lines)
    assert "(asked.jsonl:9)" in labels_agree_with_truths(rows, sample).text
    fewer = replace(sample, lines=(*lines, (Path("asked.jsonl"), 12)))
    assert "(answer 2 of the fake teacher)" in labels_agree_with_truths(rows, fewer).text
    beside = replace(sample, lines=lines[:1], beside_texts=("{}",))
    assert "(record 1 of data.train in the sample)" in labels_agree_with_truths(rows, beside).text
