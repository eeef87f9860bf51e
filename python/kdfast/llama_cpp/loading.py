"""From a GGUF file to llama.cpp's model and context; what cannot be loaded is refused with its reason."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from kdfast.errors import ConfigError, DataError
from kdfast.llama_cpp.library import Library, Params, version

MAGIC = b"GGUF"
BATCH = 512  # tokens that llama.cpp gets at once
_STEP = 256  # it rounds a context up to a multiple of this

# `llama_model_params` begins with two pointers, null by default, then n_gpu_layers. A wheel with a GPU backend puts all
# layers (-1, formerly 999) on the GPU, and big products too where no layer is there. Exports run on the CPU everywhere.
_DEVICES, _GPU_LAYERS = 0, 4  # words
_POINTERS = 4  # words of both
_GPU_LAYERS_DEFAULTS = (0, 999, 2**32 - 1)
_NO_DEVICES = ctypes.c_void_p()  # a list of GPUs that holds its end only


def check_gguf(path: Path) -> None:
    """Checks that a file is there and begins like a GGUF file.

    Raises:
        DataError: it does not.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise DataError(f"cannot read the model: {error.strerror}", source=str(path)) from None
    if start != MAGIC:
        raise DataError(
            "no GGUF file; `kdfast export RUN --target gguf` writes one: "
            f"it starts with {start!r} instead of {MAGIC!r}",
            source=str(path),
        )


def load_model(library: Library, gguf: Path) -> int:
    """llama.cpp's model of a file; `llama_model_free` frees it.

    Raises:
        ConfigError: another version of llama.cpp lays its parameters out in another way.
        DataError: llama.cpp cannot load it; with its reason.
    """
    functions: Any = library.functions
    params = on_cpu(functions.llama_model_default_params())
    library.complaints.clear()
    model: int | None = functions.llama_model_load_from_file(os.fsencode(gguf), params)
    if model is None:
        raise DataError(
            f"llama.cpp cannot load the model; export it again, or take another version of xllamacpp: "
            f"{library.reason()}",
            source=str(gguf),
        )
    return model


def on_cpu(params: Params) -> Params:
    """llama.cpp's default parameters of a model, changed so that no GPU is used.

    Raises:
        ConfigError: the fields are not where they are known to be.
    """
    begin = list(params.words[: _GPU_LAYERS + 1])
    if any(begin[:_POINTERS]) or begin[_GPU_LAYERS] not in _GPU_LAYERS_DEFAULTS:
        raise ConfigError(
            f"this version of xllamacpp has other parameters than kdfast knows; a model's begin with {begin}: "
            f"{version()}"
        )
    address = ctypes.addressof(_NO_DEVICES)
    params.words[_DEVICES], params.words[_DEVICES + 1] = address & 0xFFFFFFFF, address >> 32
    params.words[_GPU_LAYERS] = 0
    return params


def create_context(library: Library, model: int, size: int, gguf: Path) -> int:
    """A cache of `size` tokens and what computes on it; `llama_free` frees it.

    Raises:
        ConfigError: llama.cpp understood the parameters otherwise: another version lays them out in another way.
        DataError: llama.cpp cannot make it; with its reason.
    """
    functions: Any = library.functions
    asked = -(-size // _STEP) * _STEP
    batch = min(asked, BATCH)
    params = functions.llama_context_default_params()
    params.words[0], params.words[1] = asked, batch  # n_ctx, n_batch
    library.complaints.clear()
    context: int | None = functions.llama_init_from_model(model, params)
    if context is None:
        raise DataError(
            f"llama.cpp cannot make a context of {size} tokens: {library.reason()}", source=str(gguf)
        )
    made = (int(functions.llama_n_ctx(context)), int(functions.llama_n_batch(context)))
    if made != (asked, batch):  # another version of the struct: what else would be misread?
        functions.llama_free(context)
        raise ConfigError(
            f"this version of xllamacpp has other parameters than kdfast knows; asked for {asked} tokens of context "
            f"in batches of {batch}, got {made[0]} and {made[1]}: {version()}"
        )
    return context
