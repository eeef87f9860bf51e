"""Reads a GGUF file back: metadata, and each tensor as the student's own rows. Shares no code with the writer."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdfast.errors import DataError

MAGIC = b"GGUF"
VERSION = 3

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 8: ("Q8_0", 32, 34)}
"""GGUF's number of a type -> its name, weights in a block, bytes of a block."""


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a file.

    Attributes:
        type: F32, F16, Q4_0 or Q8_0.
        shape: as in the model, [out,in] or [out].
        data: its bytes, [out, bytes of a row] or [1, bytes].
    """

    type: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file."""
        return int(self.data.nbytes)

    def floats(self) -> NDArray[Any]:
        """The values of an F32 or F16 tensor, in its shape."""
        return self.data.reshape(-1).view("<f4" if self.type == "F32" else "<f2").reshape(self.shape)

    def blocks(self) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """Codes [out,in] and scales [out,in/32] of a Q4_0 or Q8_0 tensor."""
        rows, columns = self.shape
        split = self.data.reshape(rows, columns // 32, -1)
        scales = split[:, :, :2].copy().view("<f2")[:, :, 0]
        if self.type == "Q8_0":
            return split[:, :, 2:].copy().view(np.int8).reshape(rows, columns), scales
        codes = np.empty((rows, columns // 32, 32), dtype=np.int8)
        codes[:, :, :16] = split[:, :, 2:] % 16
        codes[:, :, 16:] = split[:, :, 2:] // 16
        codes -= 8
        return codes.reshape(rows, columns), scales


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file.

    Attributes:
        path: the file.
        metadata: key -> number, text, or list of such.
        tensors: name in the file -> tensor; its bytes are read when they are asked for.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """Reads a GGUF file of version 3 with tensors of the types that kdfast writes.

    Raises:
        DataError: it is damaged, or no such file; says where.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if not size:
        raise DataError("this is no GGUF file, it is empty; export the student again", str(path))
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = _Reader(content, path)
    if content[:4] != MAGIC:
        raise DataError("this is no GGUF file; export the student again", str(path))
    reader.at = 4
    version = reader.number("I")
    if version != VERSION:
        raise reader.damaged(f"version {VERSION} expected, got {version}")
    tensor_count, key_count = reader.number("Q"), reader.number("Q")
    if tensor_count + key_count > size:
        raise reader.damaged("it announces more tensors and keys than it has bytes")
    metadata = {}
    for _ in range(key_count):
        key = reader.text()
        metadata[key] = reader.value(reader.number("I"))
    infos = [reader.tensor_info() for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise reader.damaged(f"general.alignment must be a number above 0: {alignment!r}")
    start = -(-reader.at // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise reader.damaged(f"tensor {name} is there twice")
        tensors[name] = reader.tensor(name, shape, kind, start + offset)
    return GgufFile(path, metadata, tensors)


class _Reader:
    """A place in the bytes of a file."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content, self.path, self.at = content, path, 0

    def damaged(self, why: str) -> DataError:
        return DataError(
            f"the GGUF file is damaged at byte {self.at}, export the student again; {why}", str(self.path)
        )

    def take(self, count: int) -> bytes:
        if count > len(self.content) - self.at:
            raise self.damaged("it ends too early")
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        content = self.take(self.number("Q"))
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise self.damaged("a text is no UTF-8") from cause

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise self.damaged(f"a value of unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner == _STRING:
            return [self.text() for _ in range(count)]
        if inner not in _NUMBERS:
            raise self.damaged(f"an array of unknown type {inner}")
        code = _NUMBERS[inner]
        width = struct.calcsize(f"<{code}")
        content = self.take(count * width)
        return [one for (one,) in struct.iter_unpack(f"<{code}", content)]

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text()
        dimensions = self.number("I")
        if dimensions > 4:
            raise self.damaged(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]  # the file has the columns first
        return name, shape, self.number("I"), self.number("Q")

    def tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> GgufTensor:
        if kind not in TYPES:
            raise self.damaged(f"tensor {name} has the unknown type {kind}")
        type_, block, block_bytes = TYPES[kind]
        rows, columns = prod(shape[:-1]), shape[-1] if shape else 0
        if columns % block:
            raise self.damaged(f"tensor {name} has the width {columns}, no multiple of {block}")
        width = columns // block * block_bytes
        if start + rows * width > len(self.content):
            raise self.damaged(f"tensor {name} ends beyond the file")
        data = np.frombuffer(self.content, dtype=np.uint8, count=rows * width, offset=start)
        return GgufTensor(type_, shape, data.reshape(rows, width))
