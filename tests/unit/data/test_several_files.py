"""Several files of records are one dataset: the rows of the joined file, and errors that name the right one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import exit_code
from tiny import write_tokenizer
from tiny_run import record, write_config, write_records

from kdfast.config import load_config
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.errors import ConfigError, DataError

HEADER = json.dumps({"__header__": {"v": 1}}) + "\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    first = write_records(tmp_path / "first.jsonl", range(6))
    second = write_records(tmp_path / "second.jsonl", range(6, 11))
    second.write_text(HEADER + second.read_text())
    return first, second


def dataset(tmp_path: Path, *paths: Path, **options: Any) -> KDDataset:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    return KDDataset(paths if len(paths) > 1 else paths[0], tokenizer, shapes=[512], **options)


def test_the_rows_are_those_of_the_joined_file(tmp_path: Path, files: tuple[Path, Path]) -> None:
    whole = dataset(tmp_path, write_records(tmp_path / "all.jsonl", range(11)))
    parts = dataset(tmp_path, *files)
    assert len(parts) == len(whole)
    batches = [collate_kd_batch(one.__getitems__(range(len(whole)))) for one in (parts, whole)]
    for name, value in batches[0].items():
        assert torch.equal(value, batches[1][name]), name
    assert (parts.keys("x") == whole.keys("x")).all()
    assert len(parts.one_row_a_record()) == 11
    assert parts.place(int(parts.rows[-1])) == (files[1], 6)
    copy = pickle.loads(pickle.dumps(parts))  # noqa: S301 - our own
    assert torch.equal(copy[len(copy) - 1]["input_ids"], parts[len(parts) - 1]["input_ids"])


def test_an_error_names_the_file_and_its_own_line(tmp_path: Path, files: tuple[Path, Path]) -> None:
    files[1].write_text(files[1].read_text() + "nope\n")
    with pytest.raises(DataError) as caught:
        dataset(tmp_path, *files)
    assert (caught.value.source, caught.value.line) == (str(files[1]), 7)


def test_a_row_that_fits_no_shape_names_its_file(tmp_path: Path, files: tuple[Path, Path]) -> None:
    long = record(3) | {"truth_message": {"role": "assistant", "content": "word " * 900}}
    files[1].write_text(files[1].read_text() + json.dumps(long) + "\n")
    with pytest.raises(DataError, match="do not fit") as caught:
        dataset(tmp_path, *files)
    assert (caught.value.source, caught.value.line) == (str(files[1]), 7)


def test_fingerprints_depend_on_every_file(tmp_path: Path, files: tuple[Path, Path]) -> None:
    one, both = dataset(tmp_path, files[0]), dataset(tmp_path, *files)
    assert one.content != both.content
    assert one.fingerprint != both.fingerprint
    assert dataset(tmp_path, *files).content == both.content


def test_log_probabilities_of_records_must_stand_in_one_file(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    alone = dataset(tmp_path, files[0])
    length = int(alone[5]["response_length"])
    with_topk = record(3) | {"teacher_topk": {"ids": [[1]] * length, "logprobs": [[-0.1]] * length}}
    with_topk["teacher_message"] = with_topk.pop("truth_message")
    length = int(
        dataset(tmp_path, _write(tmp_path / "probe.jsonl", with_topk, drop="teacher_topk"))[0][
            "response_length"
        ]
    )
    with_topk["teacher_topk"] = {"ids": [[1]] * length, "logprobs": [[-0.1]] * length}
    third = _write(tmp_path / "third.jsonl", with_topk)
    with pytest.raises(DataError, match="must stand in one file"):
        dataset(tmp_path, files[0], third)


def _write(file: Path, one: dict[str, Any], drop: str = "") -> Path:
    file.write_text(json.dumps({key: value for key, value in one.items() if key != drop}) + "\n")
    return file


@pytest.mark.slow
def test_a_run_reads_a_list_of_files(tmp_path: Path, files: tuple[Path, Path]) -> None:
    config = write_config(tmp_path, data__train=[str(file) for file in files])
    assert exit_code("teach", config) == 0
    assert exit_code("train", config, "train.num_steps=2") == 0
    assert exit_code("data", "prepare", config) == 0
    assert exit_code("train", config, "--resume", "train.num_steps=3") == 0
    (files[0]).write_text(files[0].read_text() + files[1].read_text().splitlines()[1] + "\n")
    assert exit_code("train", config, "--resume", "train.num_steps=4", "kd.kl_weight=0.5") == 2


@pytest.mark.parametrize("value", ["[]", "[a.jsonl, a.jsonl]", "[a.jsonl, v.jsonl]"])
def test_lists_that_make_no_sense(tmp_path: Path, value: str) -> None:
    config = write_config(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.(train|validation): "):
        load_config(config, [f"data.train={value}", "data.validation=v.jsonl"])
