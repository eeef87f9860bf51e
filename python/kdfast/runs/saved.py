"""What a run's saved weights and checkpoints say without loading them: parameters, and the inputs by their hashes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast.files import parse_json
from kdfast.runs.folder import RunFolder
from kdfast.runs.reading import Missing

_MOST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What is known from a run's saved weights.

    Attributes:
        parameters: how many parameters the student has; a tensor that is used twice (tied embeddings) counts once.
        inputs: the run's inputs: config key, such as `data.validation`, to a hash of the content; empty = not known
            (no checkpoint yet, or one of an older kdfast).
    """

    parameters: int | Missing
    inputs: Mapping[str, str]


def read_saved(run: Path) -> Saved:
    """Reads the headers of a run's weights, and the state of its newest checkpoint. No tensor is read, and no torch.

    A damaged file is no error here: then the number is missing, with the reason.

    Args:
        run: a run folder.
    """
    folder = RunFolder(run)
    checkpoints = _checkpoints(folder.checkpoints)
    for directory in (folder.student, *checkpoints):
        files = sorted(directory.glob("model*.safetensors"))
        if files:
            return Saved(parameters=_count(files), inputs=_inputs(checkpoints))
    reason = "The run has saved no weights yet, or they were removed: no student and no checkpoint."
    return Saved(parameters=Missing("no weights", reason), inputs=_inputs(checkpoints))


def _checkpoints(directory: Path) -> list[Path]:
    """The checkpoints, the newest first."""
    steps = [path for path in directory.glob("step_*") if path.name.removeprefix("step_").isdecimal()]
    return sorted(steps, key=lambda path: -int(path.name.removeprefix("step_")))


def _count(files: list[Path]) -> int | Missing:
    total = 0
    for file in files:
        try:
            shapes = [value["shape"] for name, value in _header(file).items() if name != "__metadata__"]
            total += sum(math.prod(shape) for shape in shapes)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            return Missing("damaged weights", f"The header of {file.name} cannot be read ({error}).")
    return total


def _header(file: Path) -> Any:
    """The header of a safetensors file: its length in 8 bytes, little endian, then JSON."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > _MOST_HEADER_BYTES:
            raise ValueError(f"it says that it has {length} bytes")
        return parse_json(opened.read(length))


def _inputs(checkpoints: list[Path]) -> dict[str, str]:
    for checkpoint in checkpoints[:1]:
        try:
            found = parse_json((checkpoint / "state.json").read_bytes())["state"]["inputs"]
            return {str(key): str(value) for key, value in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
    return {}
