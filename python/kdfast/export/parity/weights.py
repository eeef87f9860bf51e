"""Parity of weights: a GGUF file read back, against what was to ship - codes, scales, floats, and every key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdfast.export.gguf import read_gguf
from kdfast.export.gguf.families import StudentShape, read_shape
from kdfast.export.gguf.read import GgufFile, GgufTensor
from kdfast.export.gguf.tensor_map import ROPE_FACTORS, gguf_name
from kdfast.export.parity.metadata import metadata_problems
from kdfast.export.parity.result import ParityCheck
from kdfast.export.shipped import Shipped
from kdfast.quantized import Quantized

MOST_PROBLEMS = 20
"""Sentences that a check keeps; the rest is counted."""


def check_weights(path: Path, shipped: Shipped, directory: Path, *, pre: str | None = None) -> ParityCheck:
    """Reads a GGUF file back and compares it with the student, bit for bit.

    Args:
        path: the file.
        shipped: the weights that it must hold.
        directory: the student's directory.
        pre: llama.cpp's name of the pre-tokenizer where the user gave it; None = by the table.

    Returns:
        a check; its figures are `tensors`, `quantized`, `bytes` (all tensors'), `by_format` (format -> tensors, bytes).

    Raises:
        DataError: the file is damaged.
        ConfigError: the student is none that can be a GGUF file.
        OSError: a file cannot be read.
    """
    file, shape = read_gguf(path), read_shape(directory)
    problems = [*metadata_problems(file, shipped, directory, pre), *_tensor_problems(file, shipped, shape)]
    if len(problems) > MOST_PROBLEMS:
        problems[MOST_PROBLEMS:] = [f"{len(problems) - MOST_PROBLEMS} more differences"]
    formats = Counter(tensor.type for tensor in file.tensors.values())
    return ParityCheck(
        name="weights",
        status="failed" if problems else "passed",
        figures={
            "tensors": len(file.tensors),
            "quantized": sum(tensor.type in ("Q4_0", "Q8_0") for tensor in file.tensors.values()),
            "bytes": sum(tensor.stored_bytes for tensor in file.tensors.values()),
            "by_format": {
                kind: {
                    "tensors": count,
                    "bytes": sum(one.stored_bytes for one in file.tensors.values() if one.type == kind),
                }
                for kind, count in sorted(formats.items())
            },
        },
        problems=tuple(problems),
    )


def _tensor_problems(file: GgufFile, shipped: Shipped, shape: StudentShape) -> Iterator[str]:
    names = {gguf_name(parameter, shape): parameter for parameter in shipped.tensors}
    factors = shape.rope.frequency_factors(shape.head_width)
    extra = set() if factors is None else {ROPE_FACTORS}
    for name in file.tensors.keys() - names.keys() - extra:
        yield f"{name} is too many: the student has no such tensor"
    for name in extra - file.tensors.keys():
        yield f"{name} is missing, so positions are not scaled"
    for name, parameter in names.items():
        if name in file.tensors:
            yield from _differences(name, file.tensors[name], parameter, shipped.tensors[parameter], shape)
        else:
            yield f"{name} is missing ({parameter})"
    if factors is not None and ROPE_FACTORS in file.tensors:
        found = file.tensors[ROPE_FACTORS]
        if found.type != "F32" or not np.allclose(found.floats(), factors, rtol=1e-6, atol=0):
            yield f"{ROPE_FACTORS} holds other factors than config.json's"


def _differences(
    name: str, found: GgufTensor, parameter: str, wanted: Quantized | Tensor, shape: StudentShape
) -> Iterator[str]:
    expected = _as_stored(wanted)
    if (found.type, found.shape) != (expected.type, expected.shape):
        yield f"{name} is {found.type} {list(found.shape)}, the student's is {expected.type} {list(expected.shape)}"
        return
    stored, own = (one.data.reshape(one.shape[0], -1) for one in (found, expected))
    place = _place_of_rows(parameter, len(own), shape)
    rows = stored if place is None else stored[place]
    if np.array_equal(rows, own):
        return
    if place is not None and np.array_equal(stored, own):
        yield (
            f"{name} holds the right rows in another order: its rows were not permuted for llama.cpp ({parameter})"
        )
    elif _same_rows(stored, own):
        yield f"{name} holds the right rows in another order ({parameter})"
    else:
        yield f"{name}: " + _first_difference(GgufTensor(found.type, found.shape, rows), expected)


def _as_stored(wanted: Quantized | Tensor) -> GgufTensor:
    """What the file must hold, in the model's order of rows; written out block by block as the format says."""
    if not isinstance(wanted, Quantized):
        array = wanted.contiguous().numpy()
        kind = "F16" if array.dtype == np.float16 else "F32"
        rows = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
        return GgufTensor(kind, array.shape, np.ascontiguousarray(rows).view(np.uint8))
    codes, scales = wanted.codes.cpu().numpy(), wanted.scales.cpu().numpy()
    rows, columns = codes.shape
    blocks = columns // 32
    per_block = np.repeat(
        scales, blocks // scales.shape[1], axis=1
    )  # a row's scale stands in each of its blocks
    if wanted.format == "q4_0":
        split = codes.reshape(rows, blocks, 32).astype(np.int16) + 8
        stored = (split[:, :, :16] + 16 * split[:, :, 16:]).astype(np.uint8)
    else:
        stored = codes.reshape(rows, blocks, 32).view(np.uint8)
    scale_bytes = np.ascontiguousarray(per_block).view(np.uint8).reshape(rows, blocks, 2)
    data = np.concatenate((scale_bytes, stored), axis=2).reshape(rows, -1)
    return GgufTensor("Q4_0" if wanted.format == "q4_0" else "Q8_0", (rows, columns), data)


def _place_of_rows(parameter: str, rows: int, shape: StudentShape) -> NDArray[np.int64] | None:
    """Where the file must have each row of the model, or each weight of a bias; None = where the model has it.

    This is the writer's rule inverted, and said in another way: row i of a head's first half stands at 2i.
    """
    turned = shape.family.permuted and (".q_proj." in parameter or ".k_proj." in parameter)
    if not turned:
        return None
    rows_in_head = shape.head_width
    row = np.arange(rows)
    head, inside = row // rows_in_head, row % rows_in_head
    half = rows_in_head // 2
    return head * rows_in_head + np.where(inside < half, 2 * inside, 2 * (inside - half) + 1)


def _same_rows(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> bool:
    return Counter(row.tobytes() for row in found) == Counter(row.tobytes() for row in expected)


def _first_difference(found: GgufTensor, expected: GgufTensor) -> str:
    if found.type in ("F16", "F32"):
        mine, theirs = found.floats(), expected.floats()
        bits = "<u2" if found.type == "F16" else "<u4"
        other = mine.view(bits) != theirs.view(bits)
        at = tuple(int(one) for one in np.argwhere(other)[0])
        return (
            f"{int(other.sum())} of {other.size} weights {_differ(other)}: {list(at)} ({mine[at]:.6g} in the file, "
            f"{theirs[at]:.6g} trained)"
        )
    (codes, scales), (own_codes, own_scales) = found.blocks(), expected.blocks()
    other_codes, other_scales = codes != own_codes, scales.view("<u2") != own_scales.view("<u2")
    parts, first = [], ""
    if other_scales.any():
        row, block = np.argwhere(other_scales)[0]
        parts.append(f"{int(other_scales.sum())} of {other_scales.size} scales")
        first = f"row {row}, block {block} ({scales[row, block]:.6g} in the file, {own_scales[row, block]:.6g} trained)"
    if other_codes.any():
        row, column = np.argwhere(other_codes)[0]
        parts.append(f"{int(other_codes.sum())} of {other_codes.size} codes")
        first = first or (
            f"row {row}, column {column} ({codes[row, column]} in the file, {own_codes[row, column]} trained)"
        )
    many = other_codes.mean() > 0.1
    hint = "; it is another tensor, perhaps of another step" if many else ""
    both = np.count_nonzero(other_scales) + np.count_nonzero(other_codes)
    return f"{' and '.join(parts)} {'differs' if both == 1 else 'differ'}: {first}{hint}"


def _differ(other: NDArray[np.bool_]) -> str:
    return "differs" if int(other.sum()) == 1 else "differ"
