"""Exports for llama.cpp of tiny models: the folder with GGUF, tokenizer, template and manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tiny_gguf import write_llama

SHIPPED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def write_export(directory: Path, model: Path, *, half: bool = False, **manifest: Any) -> Path:
    """Writes the export of a Llama with a byte-level tokenizer, and returns its folder.

    Args:
        directory: the folder to make.
        model: a Hugging Face directory.
        half: whether matrices are F16, else F32.
        manifest: keys of the manifest that shall have other values.
    """
    from transformers import AutoModelForCausalLM

    directory.mkdir(parents=True)
    for name in SHIPPED:
        if (model / name).is_file():
            shutil.copy(model / name, directory / name)
    gguf = directory / ("student-f16.gguf" if half else "student-f32.gguf")
    write_llama(gguf, AutoModelForCausalLM.from_pretrained(model), model, half=half)
    content = gguf.read_bytes()
    entry = {"file": gguf.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    document = {
        "schema_version": "1.0",
        "kind": "kdfast.export",
        "target": "gguf",
        "fingerprints": {"config": "c0" * 32},
        "files": [entry],
        "gguf": {"file": gguf.name, "type": "f16", "origin": "float"},
    }
    (directory / "manifest.json").write_text(json.dumps(document | manifest), encoding="utf-8")
    return directory
