"""Runs `kdfast measure` and `kdfast eval` on tiny models, and checks their error messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import exit_code


def run_on_model(
    command: str,
    folder: Path,
    out: Path,
    *options: str,
    model: Path | None = None,
    prompts: Path | None = None,
) -> int:
    """The command's exit code; the tiny teacher and the held-out records, where no others are named."""
    return exit_code(
        command,
        model or folder / "teacher",
        "--prompts",
        prompts or folder / "validation.jsonl",
        "--out",
        out,
        "--template=hermes",
        "--device=cpu",
        "--threads=1",
        "--max-new-tokens=4",
        *options,
    )


def fails(capsys: pytest.CaptureFixture[str], code: int, *names: str) -> None:
    """Checks that the command failed by the user's mistake, and that its error line has these words."""
    assert code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    for name in names:
        assert name in error, error


def write_nan_model(teacher: Path, directory: Path) -> Path:
    """Writes a copy of the teacher whose logits are NaN."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(teacher)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        os.link(teacher / name, directory / name)
    return directory
