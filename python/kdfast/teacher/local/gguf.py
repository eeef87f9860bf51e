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
from kdfast.pretrained import OWN_CODE_NEVER, quiet_transformers

SOURCE_FILE = "kdfast_source.json"
"""A file in the converted directory, with the SHA-256 of the GGUF file that it was made from."""

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


def convert_gguf(gguf: Path, directory: Path) -> Path:
    """Writes a GGUF model as a Hugging Face directory (fp32), unless that was done before.

    The directory appears whole or not at all. A second call with the same file only computes the file's hash.

    Args:
        gguf: the model file.
        directory: the directory to write; it is replaced if it was made from another file.

    Returns:
        the directory.

    Raises:
        TeacherError: the file is missing, damaged or of an architecture that transformers does not read.
        OSError: the directory cannot be written.
    """
    source = {"sha256": _sha256_gguf(gguf)}
    if _read_source(directory) == source:
        return directory
    with written_whole(directory) as beside:
        _convert(gguf, beside)
        (beside / SOURCE_FILE).write_text(json.dumps(source) + "\n", encoding="utf-8")
    return directory


def _sha256_gguf(gguf: Path) -> str:
    if not gguf.is_file():
        raise TeacherError(
            f"teacher.model: no such file, give a .gguf file or a Hugging Face directory: {gguf}"
        )
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise TeacherError(f"teacher.model: this is no GGUF file, fetch it again: {gguf}")
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_source(directory: Path) -> dict[str, str] | None:
    try:
        found: dict[str, str] = json.loads((directory / SOURCE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found


def _convert(gguf: Path, directory: Path) -> None:
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
            "teacher.model: cannot read the GGUF file, fetch it again or give a Hugging Face directory "
            f"({reason}): {gguf}"
        ) from cause
    # the weights are plain fp32 now, but save_pretrained refuses what was once quantised
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with quiet_transformers():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
