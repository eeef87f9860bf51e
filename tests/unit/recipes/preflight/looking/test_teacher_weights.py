"""The headers of a teacher's weight files: one file, several, and an index that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from kdfast.errors import TeacherError
from kdfast.recipes.preflight.looking.teacher_weights import tensors, weight_files

INDEX = "model.safetensors.index.json"


def write_parts(directory: Path) -> None:
    weight_map = {}
    for number in (1, 2):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({f"layer.{number}": np.zeros((number, 3), np.float32)}, directory / file)
        weight_map[f"layer.{number}"] = file
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def test_the_tensors_of_all_parts_are_found(tmp_path: Path) -> None:
    write_parts(tmp_path)
    save_file({"other": np.zeros(1, np.float32)}, tmp_path / "other.safetensors")
    found = {name: (one.shape, one.numbers) for name, one in tensors(tmp_path).items()}
    assert found == {"layer.1": ((1, 3), 3), "layer.2": ((2, 3), 6)}


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"model-00002-of-00002\.safetensors is missing"):
        weight_files(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": null}'])
def test_a_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(TeacherError, match="the index is damaged"):
        weight_files(tmp_path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"layer": np.zeros(100, np.float32)}, file)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(SafetensorError):
        tensors(tmp_path)
