"""What saved weights say without being loaded: the number of parameters, and the run's inputs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from made_run import write_run

from kdfast.runs.reading import Missing
from kdfast.runs.saved import read_saved


def write_weights(file: Path, **shapes: list[int]) -> Path:
    """A safetensors file of float32 zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return file


def write_state(directory: Path, inputs: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "state.json").write_text(json.dumps({"state": {"inputs": inputs}}), encoding="utf-8")


def test_the_final_student_comes_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_weights(run / "checkpoints" / "step_8" / "model.safetensors", a=[100])
    assert read_saved(run).parameters == 100
    write_weights(run / "student" / "model-00001-of-00002.safetensors", a=[2, 3], bias=[])
    write_weights(run / "student" / "model-00002-of-00002.safetensors", b=[5])
    assert read_saved(run).parameters == 2 * 3 + 1 + 5


def test_the_newest_checkpoint_by_its_number(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for step in (9, 10):
        write_weights(run / "checkpoints" / f"step_{step}" / "model.safetensors", a=[step])
        write_state(run / "checkpoints" / f"step_{step}", {"data.validation": f"hash {step}"})
    (run / "checkpoints" / "step_99.tmp").mkdir()
    saved = read_saved(run)
    assert (saved.parameters, saved.inputs) == (10, {"data.validation": "hash 10"})


def test_a_run_without_weights(tmp_path: Path) -> None:
    saved = read_saved(write_run(tmp_path / "run"))
    assert isinstance(saved.parameters, Missing)
    assert "saved no weights" in saved.parameters.reason
    assert saved.inputs == {}


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 9, struct.pack("<Q", 4) + b"[1]]", struct.pack("<Q", 9) + b'{"a": 1}']
)
def test_damaged_weights_are_no_error_but_a_reason(tmp_path: Path, content: bytes) -> None:
    run = write_run(tmp_path / "run")
    write_weights(run / "student" / "model.safetensors").write_bytes(content)
    found = read_saved(run).parameters
    assert isinstance(found, Missing)
    assert "model.safetensors cannot be read" in found.reason


@pytest.mark.parametrize("content", ["", "[]", '{"state": 1}', '{"state": {}}', '{"state": {"inputs": [1]}}'])
def test_a_state_that_names_no_inputs(tmp_path: Path, content: str) -> None:
    run = write_run(tmp_path / "run")
    write_state(run / "checkpoints" / "step_8", {})
    (run / "checkpoints" / "step_8" / "state.json").write_text(content, encoding="utf-8")
    assert read_saved(run).inputs == {}


def test_a_file_of_safetensors_itself(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    run = write_run(tmp_path / "run")
    (run / "student").mkdir()
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(7)}, run / "student" / "model.safetensors")
    assert read_saved(run).parameters == 19
