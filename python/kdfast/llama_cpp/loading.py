"""From a GGUF file to llama.cpp's model and context; what cannot be loaded is refused with its reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kdfast.errors import ConfigError, DataError
from kdfast.llama_cpp.library import Library, version

MAGIC = b"GGUF"
BATCH = 512  # tokens that llama.cpp gets at once
_STEP = 256  # it rounds a context up to a multiple of this


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
        DataError: llama.cpp cannot load it; with its reason.
    """
    functions: Any = library.functions
    library.complaints.clear()
    model: int | None = functions.llama_model_load_from_file(
        os.fsencode(gguf), functions.llama_model_default_params()
    )
    if model is None:
        raise DataError(
            f"llama.cpp cannot load the model; export it again, or take another version of xllamacpp: "
            f"{library.reason()}",
            source=str(gguf),
        )
    return model


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
