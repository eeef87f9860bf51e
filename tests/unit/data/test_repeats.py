"""Equal rows, prompts with two answers, prompts on both sides."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import write_tokenizer
from tiny_run import record

from kdfast.data import KDDataset
from kdfast.data.repeats import duplicate_rows, other_answers, shared_prompts


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer")


def dataset(tokenizer: Path, name: str, records: list[dict[str, Any]]) -> KDDataset:
    file = tokenizer.parent / name
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    return KDDataset(file, tokenizer, shapes=[512])


def plain(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": prompt, **fields}


def test_shared_prompts_are_counted(tokenizer: Path) -> None:
    train = dataset(tokenizer, "train.jsonl", [record(number) for number in range(12)])
    part = dataset(tokenizer, "part.jsonl", [record(number) for number in (3, 20, 21)])
    assert shared_prompts(train, part) == (1, 3)
    assert shared_prompts(part, train) == (1, 12)


def test_other_tools_make_another_prompt(tokenizer: Path) -> None:
    train = dataset(tokenizer, "train.jsonl", [record(0), record(1)])
    changed = copy.deepcopy(record(0))
    changed["tools"][0]["function"]["name"] = "get_climate"
    del changed["truth_message"]
    changed["truth_text"] = "No."
    assert shared_prompts(train, dataset(tokenizer, "changed.jsonl", [changed])) == (0, 1)


def test_rows_with_the_same_tokens_are_duplicates(tokenizer: Path) -> None:
    hi = plain("Hi ", teacher_text="Hello")
    records = [hi, plain("Ho ", teacher_text="Hello"), hi | {"metadata": {"id": 3}}, hi]
    assert duplicate_rows(dataset(tokenizer, "a.jsonl", records)) == 2
    assert duplicate_rows(dataset(tokenizer, "b.jsonl", records[:2])) == 0
    # a record with two answers has two rows, and each has its twin
    both = hi | {"truth_text": "Hey"}
    assert duplicate_rows(dataset(tokenizer, "c.jsonl", [both, both, both])) == 4


def test_the_same_tokens_with_another_boundary_are_no_duplicates(tokenizer: Path) -> None:
    """Where the answer begins is part of the row: it says what is learned."""
    records = [plain("QZ", teacher_text="XJ"), plain("Q", teacher_text="ZXJ")]
    data = dataset(tokenizer, "a.jsonl", records)
    assert data.ids(0) == data.ids(1)
    assert duplicate_rows(data) == 0


def test_prompts_with_another_answer_are_named_by_line(tokenizer: Path) -> None:
    records = [
        plain("Hi ", teacher_text="Hello"),
        plain("Ho ", teacher_text="Hello"),
        plain("Hi ", teacher_text="Goodbye"),
        plain("Hi ", teacher_text="Hello"),
        plain("Hi ", teacher_text="Hello", truth_text="Hey"),
        plain("Hi ", truth_text="Good day"),
    ]
    data = dataset(tokenizer, "a.jsonl", records)
    # line 3 has another teacher's answer than line 1, line 6 another truth than line 5
    assert other_answers(data) == [(data.path, 3), (data.path, 6)]


def test_a_teachers_answer_beside_a_truth_is_no_other_answer(tokenizer: Path) -> None:
    records = [plain("Hi ", teacher_text="Hello", truth_text="Hey"), plain("Hi ", teacher_text="Hello")]
    assert other_answers(dataset(tokenizer, "a.jsonl", records)) == []
