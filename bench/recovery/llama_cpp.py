"""The student as `llama-quantize` makes a Q4_0 of it: llama.cpp's own functions, by ctypes from the xllamacpp wheel.

Its type Q4_0 keeps the output layer (here the tied embedding) in Q6_K, or in Q8_0 where 256 does not divide the width.
"""

from __future__ import annotations

import copy
import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor, nn

from kdfast.quantized import plan_model
from recovery.student import Row, padded, quant_config

Q4_0, Q6_K, Q8_0 = GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q6_K, GGMLQuantizationType.Q8_0
WHEEL = "xllamacpp"


class AbsentError(Exception):
    """llama.cpp's functions are not installed here; the message says what is missing."""


def load_library() -> ctypes.CDLL:
    """llama.cpp's functions.

    Raises:
        AbsentError: the wheel is not installed, or has them no more.
    """
    found = importlib.util.find_spec(WHEEL)
    if found is None or found.origin is None:
        raise AbsentError(f"{WHEEL} is not installed; pip install 'kdfast[export]'")
    package = Path(found.origin).resolve().parent
    for file in sorted([*package.glob("*.so"), *package.parent.glob(f"{WHEEL}*.so")]):
        library = ctypes.CDLL(str(file))
        if hasattr(library, "ggml_quantize_chunk"):
            library.ggml_quantize_chunk.restype = ctypes.c_size_t
            library.ggml_quantize_chunk.argtypes = [
                ctypes.c_int,
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.c_void_p,
            ]
            return library
    raise AbsentError(f"no library of {WHEEL} has ggml_quantize_chunk: {package.parent}")


def version() -> str | None:
    """The wheel's version; None = not installed, or not known."""
    try:
        return importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None


def through(
    library: ctypes.CDLL, weight: Tensor, kind: GGMLQuantizationType, importance: Tensor | None = None
) -> tuple[Tensor, int]:
    """A weight [out,in] quantised and dequantised, and its bytes.

    Args:
        library: llama.cpp's functions.
        weight: float32.
        kind: a type of llama.cpp.
        importance: [in] mean squares of the layer's inputs; None = every column weighs the same.
    """
    source = np.ascontiguousarray(weight.detach().numpy())
    rows, columns = source.shape
    packed = np.zeros(quants.quant_shape_to_byte_shape((rows, columns), kind), dtype=np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance.numpy(), dtype=np.float32)
    size = library.ggml_quantize_chunk(
        int(kind),
        source.ctypes.data,
        packed.ctypes.data,
        0,
        rows,
        columns,
        None if weights is None else weights.ctypes.data,
    )
    if size != packed.nbytes:
        raise ValueError(f"llama.cpp wrote another number of bytes than {packed.nbytes}: {size}")
    return torch.from_numpy(quants.dequantize(packed, kind).astype(np.float32)), size


@torch.no_grad()
def importance_matrix(student: Any, rows: Sequence[Row], size: int = 50) -> dict[str, Tensor]:
    """Layer name -> mean squares [in] of its inputs, as `llama-imatrix` collects them; not of the output layer."""
    sums: dict[str, Tensor] = {}
    count = sum(len(row.ids) for row in rows)

    def watch(name: str, mask: list[Tensor]) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = inputs[0][mask[0]].double().square().sum(0)
            sums[name] = sums.get(name, torch.zeros_like(found)) + found

        return hook

    mask = [torch.empty(0)]
    handles = [
        module.register_forward_pre_hook(watch(name, mask))
        for name, module in student.model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    for at in range(0, len(rows), size):
        some = rows[at : at + size]
        ids = padded(some)
        lengths = torch.tensor([len(row.ids) for row in some])
        mask[0] = torch.arange(ids.shape[1]) < lengths[:, None]
        student.model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return {f"model.{name}.weight": (found / count).float() for name, found in sums.items()}


@torch.no_grad()
def llama_cpp_q4_0(
    library: ctypes.CDLL, student: Any, importance: Mapping[str, Tensor] | None = None
) -> tuple[Any, int, str]:
    """The student with llama.cpp's Q4_0, its bytes, and the type of its embedding."""
    made = copy.deepcopy(student)
    parameters, size, other = dict(made.named_parameters()), 0, ""
    for tensor in plan_model(made, quant_config("q4_0")).tensors:
        weight = parameters[tensor.name]
        kind = Q4_0
        if tensor.embedding or "lm_head.weight" in (tensor.name, *tensor.modules):
            kind = Q8_0 if weight.shape[1] % 256 else Q6_K
            other = kind.name
        values, written = through(library, weight, kind, (importance or {}).get(tensor.name))
        weight.copy_(values)
        size += written
    return made, size, other
