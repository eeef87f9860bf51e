"""Held-out prompts that are training prompts too, and training rows that are there twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import write_tokenizer
from tiny_run import record

from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.recipes.train.overlap import check_overlap, duplicates_note


def dataset(folder: Path, name: str, numbers: list[int]) -> KDDataset:
    file = folder / name
    file.write_text("".join(json.dumps(record(number)) + "\n" for number in numbers))
    return KDDataset(file, write_tokenizer(folder / "tokenizer"), shapes=[512])


def test_shared_prompts_are_counted_and_all_of_them_refused(tmp_path: Path) -> None:
    train = dataset(tmp_path, "train.jsonl", list(range(12)))
    assert check_overlap(train, dataset(tmp_path, "other.jsonl", [20, 21])) == ""
    part = dataset(tmp_path, "part.jsonl", [3, 20, 21])
    assert "1 of 3 held-out prompts are in the training data too" in check_overlap(train, part)
    with pytest.raises(ConfigError, match="all 2 of its prompts are in the training data too"):
        check_overlap(train, dataset(tmp_path, "same.jsonl", [4, 5]))


def test_rows_that_are_there_twice_are_counted(tmp_path: Path) -> None:
    assert duplicates_note(dataset(tmp_path, "train.jsonl", [1, 2, 3])) == ""
    # record 5 has two rows: a teacher's answer and a truth
    assert duplicates_note(dataset(tmp_path, "twice.jsonl", [1, 5, 2, 5, 1])) == (
        "3 of 7 training rows have the same tokens as an earlier row: they are learned again"
    )
