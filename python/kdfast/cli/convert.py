"""`kdfast convert`: turns a GGUF model into a Hugging Face directory."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from pathlib import Path

import click

from kdfast.cli.arguments import PATH
from kdfast.model_files import check_converted, check_gguf


@click.command()
@click.argument("gguf", type=PATH)
@click.argument("directory", type=PATH)
def convert(gguf: Path, directory: Path) -> None:
    """Turn GGUF, a model file, into DIRECTORY, a Hugging Face model with its tokenizer.

    Weights are expanded to fp32. The directory appears whole or not at all; when it was made from the same file
    before, nothing is done. `kdfast teach` also takes a .gguf file as teacher.model and converts it by itself; this
    command is for when the tokenizer is needed before.

    \b
    Example:
      kdfast convert SmolLM2-135M-Instruct.Q4_1.gguf models/teacher

    \b
    Exit codes: 0 converted, or there already; 1 the machine failed or a bug; 2 DIRECTORY holds other files;
    5 the file is missing, damaged or of an architecture that transformers does not read.
    """
    check_gguf(gguf, name="gguf")
    check_converted(directory)
    from kdfast.teacher import convert_gguf

    click.echo(f"{convert_gguf(gguf, directory, name='gguf')}: ready")
