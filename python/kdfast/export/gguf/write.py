"""Writes a GGUF file: the container by the package `gguf`, names, rows and blocks by this room."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdfast.errors import ConfigError, DataError
from kdfast.export.gguf.blocks import BLOCK, BLOCK_BYTES, block_type, pack
from kdfast.export.gguf.families import StudentShape, read_config, read_shape
from kdfast.export.gguf.metadata import ARCHITECTURE, Entry, metadata
from kdfast.export.gguf.read import read_gguf
from kdfast.export.gguf.tensor_map import ROPE_FACTORS, gguf_name, row_order
from kdfast.export.gguf.vocabulary import read_vocabulary
from kdfast.export.shipped import Shipped
from kdfast.files import check_file
from kdfast.quantized import Quantized

EMBEDDING = "model.embed_tokens.weight"
"""The parameter whose rows are the ids."""


def check_supported(directory: Path, *, pre: str | None = None) -> None:
    """Checks that llama.cpp can run a student as it was trained. No weight is read.

    Args:
        directory: the student's directory.
        pre: llama.cpp's name of the pre-tokenizer; None = by the table.

    Raises:
        ConfigError: it cannot, or is not known to; says why, and the remedy.
        DataError: a file of the directory is missing or damaged.
        OSError: a file cannot be read.
    """
    config, shape = read_config(directory), read_shape(directory)
    rows = config.get("vocab_size")
    if not isinstance(rows, int) or rows < 1:
        raise ConfigError(f"gguf: config.json must hold a number as vocab_size; save it again: {rows!r}")
    metadata(shape, read_vocabulary(directory, rows, pre), directory, type_="q8_0", name="student")


def check_parts(model: Path | None, tokenizer: Path) -> None:
    """Checks before a training what is known of its student by then; `check_supported` checks the finished one.

    Args:
        model: the Hugging Face directory that the student starts from; None = it starts from scratch.
        tokenizer: the student's tokenizer.json, or the directory that holds it.

    Raises:
        ConfigError: llama.cpp cannot run such a student as it will be trained; says why, and the remedy.
        DataError: a file is missing or damaged.
        OSError: a file cannot be read.
    """
    if model is not None:
        read_shape(model)
    read_vocabulary(tokenizer if tokenizer.is_dir() else tokenizer.parent, None)


def write_gguf(path: Path, shipped: Shipped, directory: Path, *, name: str, pre: str | None = None) -> None:
    """Writes a student's GGUF file, whole or not at all; its folder is made, a former file is replaced.

    Args:
        path: the file.
        shipped: the weights.
        directory: the student's directory, for config, tokenizer, template and end tokens.
        name: the model's name in the file.
        pre: llama.cpp's name of the pre-tokenizer; None = by the table.

    Raises:
        ConfigError: llama.cpp cannot run the student as it was trained; see `check_supported`.
        DataError: a file of the directory is missing or damaged.
        OSError: the file cannot be written.
    """
    shape = read_shape(directory)
    rows = _rows(shipped)
    entries = metadata(shape, read_vocabulary(directory, rows, pre), directory, type_=shipped.type, name=name)
    tensors = {gguf_name(parameter, shape): parameter for parameter in shipped.tensors}
    _check_complete(tensors, shape)
    check_file(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(beside, shipped, shape, tensors, entries)
        _check_whole(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        # numpy gives no number where it cannot write all: "4096 requested and 512 written".
        why = error.strerror or f"not all of it could be written, the disk may be full ({error})"
        raise OSError(error.errno or errno.ENOSPC, why, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def _check_whole(path: Path) -> None:
    """Raises OSError where the file is shorter than its header says: numpy loses the error of a last small write."""
    try:
        read_gguf(path)
    except DataError as error:
        raise OSError(
            errno.ENOSPC, f"not all of it could be written, the disk may be full ({error.message})"
        ) from None


def _rows(shipped: Shipped) -> int:
    embedding = shipped.tensors.get(EMBEDDING)
    if embedding is None:
        raise ConfigError(f"gguf: the student has no embedding of that name; save it again: {EMBEDDING}")
    return len(embedding.codes if isinstance(embedding, Quantized) else embedding)


def _check_complete(names: Mapping[str, str], shape: StudentShape) -> None:
    """Checks that the weights have the layers of config.json."""
    found = {name.split(".")[1] for name in names if name.startswith("blk.")}
    if found != {str(layer) for layer in range(shape.layers)}:
        raise ConfigError(
            f"gguf: the student's weights have other layers than its config.json; save it again: {len(found)} of "
            f"{shape.layers}"
        )


def _write(
    path: Path,
    shipped: Shipped,
    shape: StudentShape,
    names: Mapping[str, str],
    entries: Mapping[str, Entry],
) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, shape.family.arch)
    try:
        for key, entry in entries.items():
            _add(writer, key, entry)
        factors = shape.rope.frequency_factors(shape.head_width)
        if factors is not None:
            writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
        for name, parameter in names.items():
            _announce(writer, name, shipped.tensors[parameter])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for parameter in names.values():  # one tensor's bytes in memory at a time
            writer.write_tensor_data(_bytes(parameter, shipped.tensors[parameter], shape))
    finally:
        writer.close()


def _add(writer: Any, key: str, entry: Entry) -> None:
    from gguf import GGUFValueType

    if key == ARCHITECTURE:  # the writer has it already
        return
    if entry.kind in ("strings", "int32s"):
        inner = GGUFValueType.STRING if entry.kind == "strings" else GGUFValueType.INT32
        writer.add_key_value(key, list(entry.value), GGUFValueType.ARRAY, sub_type=inner)  # type: ignore[arg-type]
    else:
        writer.add_key_value(key, entry.value, GGUFValueType[entry.kind.upper()])


def _announce(writer: Any, name: str, tensor: Quantized | Tensor) -> None:
    from gguf import GGMLQuantizationType

    if isinstance(tensor, Quantized):
        kind = block_type(tensor)
        rows, columns = tensor.codes.shape
        width = columns // BLOCK * BLOCK_BYTES[kind]
        writer.add_tensor_info(
            name, (rows, width), np.dtype(np.uint8), rows * width, raw_dtype=GGMLQuantizationType[kind]
        )
        return
    array = tensor.numpy()
    writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes)


def _bytes(parameter: str, tensor: Quantized | Tensor, shape: StudentShape) -> NDArray[Any]:
    order = row_order(parameter, shape)
    # The bytes of a row hold its scales too, so both move together.
    stored: NDArray[Any] = (
        pack(parameter, tensor) if isinstance(tensor, Quantized) else tensor.contiguous().numpy()
    )
    if order is None:
        return stored
    if len(order) != len(stored):
        raise ConfigError(
            f"gguf: a tensor has other heads than config.json says; save the student again: {parameter} has "
            f"{len(stored)} rows, not {len(order)}"
        )
    moved: NDArray[Any] = stored[order.numpy()]
    return moved
