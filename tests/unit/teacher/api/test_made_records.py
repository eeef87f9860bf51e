"""Which answers the records of a dataset were made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdfast.errors import DataError
from kdfast.teacher.api.made_records import MadeRecords

REQUEST, RESPONSE = "ab" * 32, "cd" * 32
TEACHER = {"request": REQUEST, "response": RESPONSE, "model": "m"}


def _read(folder: Path, *lines: object) -> tuple[MadeRecords, list[tuple[str, str]]]:
    path = folder / "out.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    made = MadeRecords([path])
    return made, list(made.answers())


@pytest.mark.parametrize(
    "metadata",
    [{"teacher": TEACHER}, json.dumps({"teacher": TEACHER}), {"teacher": json.dumps(TEACHER), "id": 3}],
)
def test_a_record_that_names_its_answer(tmp_path: Path, metadata: object) -> None:
    made, answers = _read(tmp_path, {"prompt": "a", "metadata": metadata})
    assert answers == [(REQUEST, RESPONSE)]
    assert (made.records, made.others) == (1, 0)
    assert made.places == {REQUEST: f"{tmp_path / 'out.jsonl'}:1"}


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"metadata": None},
        {"metadata": "my own words"},
        {"metadata": [1]},
        {"metadata": {"teacher": "a name"}},
        {"metadata": {"teacher": None}},
        {"metadata": {"teacher": {}}},
        {"metadata": {"teacher": {"request": None, "response": None, "model": "m"}}},
    ],
)
def test_a_record_that_does_not(tmp_path: Path, record: object) -> None:
    made, answers = _read(tmp_path, record, {"metadata": {"teacher": TEACHER}})
    assert answers == [(REQUEST, RESPONSE)]
    assert (made.records, made.others, made.places[REQUEST][-2:]) == (1, 1, ":2")


def test_blank_lines_headers_and_byte_order_marks_are_no_records(tmp_path: Path) -> None:
    marked = "\ufeff" + json.dumps({"metadata": {"teacher": TEACHER}})
    made, answers = _read(tmp_path, {"__header__": {"a": 1}}, "", "   ", marked, "")
    assert (len(answers), made.records, made.others) == (1, 1, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "out.jsonl:2: not JSON"),
        ("[1]", "out.jsonl:2: must be a JSON object; name a dataset in JSONL: list"),
        (
            {"metadata": {"teacher": {"request": REQUEST}}},
            "out.jsonl:2: metadata.teacher.response: must be 64 hex",
        ),
        (
            {"metadata": {"teacher": {**TEACHER, "request": 7}}},
            "metadata.teacher.request: must be 64 hex digits.*7$",
        ),
        ({"metadata": {"teacher": {**TEACHER, "response": "CD" * 32}}}, "metadata.teacher.response: must be"),
    ],
)
def test_a_line_that_cannot_be_compared(tmp_path: Path, line: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        _read(tmp_path, {"metadata": {"teacher": TEACHER}}, line)


def test_the_first_record_of_an_answer_gives_the_place(tmp_path: Path) -> None:
    record = {"metadata": {"teacher": TEACHER}}
    made, answers = _read(tmp_path, record, record)
    assert answers == [(REQUEST, RESPONSE)] * 2
    assert made.places[REQUEST].endswith(":1")


@pytest.mark.parametrize(
    ("topk", "carries"),
    [
        ({"ids": [[5]], "logprobs": [[-0.5]]}, True),
        ('{"ids": [[5]], "logprobs": [[-0.5]]}', True),
        ({"ids": [], "logprobs": []}, False),
        ({}, False),
        ("", False),
        ("no JSON", False),
        (None, False),
        ([], False),
    ],
)
def test_records_with_log_probabilities_are_counted(tmp_path: Path, topk: object, carries: bool) -> None:
    mine = {"prompt": "a", "teacher_topk": topk}
    made, _ = _read(tmp_path, mine, mine | {"metadata": {"teacher": TEACHER}}, {"prompt": "b"})
    assert made.with_logprobs == 2 * carries
