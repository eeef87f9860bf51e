"""The target `gguf`: one file for llama.cpp, with what a reader needs beside it."""

from __future__ import annotations

import re
from pathlib import Path

from kdfast.display import Display
from kdfast.errors import ConfigError, SchemaError
from kdfast.export.gbnf import tool_grammar
from kdfast.export.gguf import write_gguf
from kdfast.export.hf import copy_tokenizer_files
from kdfast.export.serving import modelfile
from kdfast.export.shipped import shipped_weights
from kdfast.files import write_text_whole
from kdfast.recipes.export.made import Made, manifest_of, serving_of, weights_bytes
from kdfast.recipes.export.student import Student
from kdfast.recipes.export.verify import verify_gguf
from kdfast.runs.export_folder import ExportFolder


def make_gguf(student: Student, folder: Path, display: Display) -> Made:
    """Writes the GGUF file, its tokenizer's files, the grammar and the Modelfile, and verifies the file.

    Args:
        student: the student.
        folder: an empty directory.
        display: shows progress.

    Raises:
        ConfigError, DataError, QATError, OSError: as in `kdfast.recipes.export.run.export`.
    """
    request = student.request
    shipped = shipped_weights(student.model, student.table, request.gguf_type)
    copy_tokenizer_files(student.directory, folder)
    file = folder / file_name(request.student_name, shipped.type)
    write_gguf(file, shipped, student.directory, name=request.student_name, pre=request.pre)
    gaps = _write_grammar(student, ExportFolder(folder).grammar)
    serving = serving_of(student, file=file.name, grammar="" if gaps else ExportFolder(folder).grammar.name)
    write_text_whole(ExportFolder(folder).modelfile, modelfile(serving))
    parity = verify_gguf(student, file, shipped, display) if request.verify else None
    manifest = manifest_of(
        student,
        tensors=shipped.tensors.items(),
        parity=parity,
        gguf={"file": file.name, "type": shipped.type, "origin": shipped.origin},
        not_measured=gaps,
    )
    return Made(
        manifest=manifest,
        serving=serving,
        model_bytes=file.stat().st_size,
        trained_bytes=weights_bytes(student.directory),
    )


def file_name(name: str, kind: str) -> str:
    """The GGUF file's name.

    Example:
        >>> file_name("my student", "q4_0")
        'my-student-q4_0.gguf'
    """
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.') or 'student'}-{kind}.gguf"


def _write_grammar(student: Student, path: Path) -> dict[str, str]:
    """Writes the grammar of the tools; what is missing, and why."""
    tools = student.tools
    if not tools:
        differ = "the records do not share one set of tools; name one with --tools"
        known = any(record.tools for record in student.records)
        return {"grammar": differ if known else "no tools are known: name them with --tools"}
    try:
        grammar = tool_grammar(tools, student.call_format or "")
    except (ConfigError, SchemaError) as error:
        if student.request.tools is not None:
            raise
        return {"grammar": str(error)}
    write_text_whole(path, grammar)
    return {}
