"""Turns a GGUF file into a Hugging Face directory, once."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdfast.errors import TeacherError
from kdfast.files import written_whole
from kdfast.model_files import SOURCE_FILE, check_converted, check_gguf
from kdfast.pretrained import OWN_CODE_NEVER, quiet_transformers

_BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""Errors that reading a damaged GGUF file may raise."""


def convert_gguf(gguf: Path, directory: Path, *, name: str = "teacher.model") -> Path:
    """Writes a GGUF model as a Hugging Face directory (fp32), unless that was done before.

    The directory appears whole or not at all. A second call with the same file only computes the file's hash.

    Args:
        gguf: the model file.
        directory: the directory to write; it is replaced if this function made it from another file.
        name: how messages call the model file.

    Returns:
        the directory.

    Raises:
        TeacherError: the file is missing, damaged or of an architecture that transformers does not read.
        ConfigError: the directory is a file, or holds what this function did not write.
        OSError: the directory cannot be written.
    """
    check_gguf(gguf, name=name)
    check_converted(directory)
    source = {"sha256": _sha256(gguf)}
    if _read_source(directory) == source:
        return directory
    with written_whole(directory) as beside:
        _convert(gguf, beside, name)
        (beside / SOURCE_FILE).write_text(json.dumps(source) + "\n", encoding="utf-8")
    return directory


def _sha256(gguf: Path) -> str:
    with gguf.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_source(directory: Path) -> dict[str, str] | None:
    try:
        found: dict[str, str] = json.loads((directory / SOURCE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found


def _convert(gguf: Path, directory: Path, name: str) -> None:
    try:
        # there is no other way to hide its progress bar
        with quiet_transformers(), redirect_stderr(io.StringIO()):
            model: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.float32,
                local_files_only=True,
                **OWN_CODE_NEVER,
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(
                gguf.parent, gguf_file=gguf.name, local_files_only=True, **OWN_CODE_NEVER
            )
    except _BROKEN as cause:
        reason = " ".join(str(cause).split())[:200]
        raise TeacherError(
            f"{name}: cannot read the GGUF file, fetch it again or give a Hugging Face directory ({reason}): {gguf}"
        ) from cause
    # the weights are plain fp32 now, but save_pretrained refuses what was once quantised
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with quiet_transformers():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
