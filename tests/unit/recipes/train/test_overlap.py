"""Held-out prompts that are training prompts too."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from tiny import write_tokenizer
from tiny_run import record

from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.recipes.train.overlap import check_overlap, shared_prompts


def dataset(folder: Path, name: str, numbers: list[int]) -> KDDataset:
    file = folder / name
    file.write_text("".join(json.dumps(record(number)) + "\n" for number in numbers))
    return KDDataset(file, write_tokenizer(folder / "tokenizer"), shapes=[512])


def test_shared_prompts_are_counted_and_all_of_them_refused(tmp_path: Path) -> None:
    train = dataset(tmp_path, "train.jsonl", list(range(12)))
    assert check_overlap(train, dataset(tmp_path, "other.jsonl", [20, 21])) == ""
    part = dataset(tmp_path, "part.jsonl", [3, 20, 21])
    assert shared_prompts(train, part) == (1, 3)
    assert "1 of 3 held-out prompts are in the training data too" in check_overlap(train, part)
    with pytest.raises(ConfigError, match="all 2 of its prompts are in the training data too"):
        check_overlap(train, dataset(tmp_path, "same.jsonl", [4, 5]))


def test_other_tools_make_another_prompt(tmp_path: Path) -> None:
    train = dataset(tmp_path, "train.jsonl", [0, 1])
    changed = copy.deepcopy(record(0))
    changed["tools"][0]["function"]["name"] = "get_climate"
    del changed["truth_message"]
    changed["truth_text"] = "No."
    file = tmp_path / "changed.jsonl"
    file.write_text(json.dumps(changed))
    assert shared_prompts(train, KDDataset(file, tmp_path / "tokenizer", shapes=[512])) == (0, 1)
