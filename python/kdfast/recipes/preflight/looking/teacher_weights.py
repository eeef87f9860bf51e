"""What the headers of a teacher's weight files say: its tensors, without reading one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from kdfast.errors import TeacherError


@dataclass(frozen=True)
class TensorHeader:
    """What the header of a file says of a tensor.

    Attributes:
        shape: its sizes.
    """

    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))


def weight_files(directory: Path) -> list[Path]:
    """The files that hold a model's weights.

    Raises:
        TeacherError: the index is damaged, or names a file that is missing.
    """
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(directory.glob("*.safetensors"))
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TeacherError(f"teacher.model: the index is damaged, fetch it again: {index}") from error
    missing = sorted(name for name in named if not (directory / name).is_file())
    if missing:
        raise TeacherError(f"teacher.model: {missing[0]} is missing, fetch the model again: {directory}")
    return sorted(directory / name for name in named)


def tensors(directory: Path) -> dict[str, TensorHeader]:
    """The tensors of a model, by name; no number is read.

    Raises:
        SafetensorError: a file is damaged, or has another length than its header says.
        TeacherError: as `weight_files`.
    """
    found: dict[str, TensorHeader] = {}
    for file in weight_files(directory):
        with safe_open(file, framework="numpy") as opened:
            found |= {name: TensorHeader(tuple(opened.get_slice(name).get_shape())) for name in opened.keys()}  # noqa: SIM118
    return found
