"""Before the first step: what the run will save can be saved, is read by transformers, and has room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdfast.errors import ConfigError
from kdfast.pretrained import check_readable, make_savable
from kdfast.runs.checkpoint import Checkpoints
from kdfast.runs.folder import RunFolder

TRIAL_BYTES = 1_000_000_000
"""A checkpoint below this size is written whole on trial; of a larger one, all but the weights."""


def try_saving(
    student: Any,
    optimizer: torch.optim.Optimizer,
    folder: RunFolder,
    write_student: Callable[..., None],
    *,
    keep_last: int,
    terms: nn.Module | None = None,
    whole_below: int = TRIAL_BYTES,
) -> str:
    """Writes a checkpoint on trial, lets transformers read it, and removes it.

    Args:
        student: the model.
        optimizer: its optimiser.
        folder: the run folder.
        write_student: `write_student(model, directory, weights=...)` writes the student's files.
        keep_last: how many checkpoints the run keeps.
        terms: parameters that loss terms learn; None = none.
        whole_below: a checkpoint of fewer bytes is written whole, a larger one without the weights.

    Returns:
        what had to be changed so that the student can be saved; "" = nothing.

    Raises:
        ConfigError: the disk has too little room, or transformers does not read what was written.
        OSError: it cannot be written.
    """
    note = make_savable(student)
    size = checkpoint_bytes(student)
    there = len(Checkpoints(folder.checkpoints, write_student).steps())
    needed = bytes_needed(size, keep_last=keep_last, there=there)
    check_room(needed, shutil.disk_usage(folder.path).free, folder.path)
    trial = folder.trial
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    try:
        if size < whole_below:
            written = Checkpoints(trial, write_student).save(0, student, optimizer, {}, terms=terms)
        else:
            written = trial
            write_student(student, written, weights=False)
        check_readable(written, error=ConfigError, name="arch.init")
    finally:
        shutil.rmtree(trial)
    return note


def checkpoint_bytes(student: nn.Module) -> int:
    """The size of a checkpoint: the weights, and AdamW's two averages of those that are trained."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in student.parameters())
    trained = sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
    return weights + 2 * 4 * trained


def bytes_needed(checkpoint: int, *, keep_last: int, there: int) -> int:
    """The room that a run still needs: the checkpoints it keeps, the best one, and one that is being written.

    Args:
        checkpoint: the size of one.
        keep_last: how many are kept.
        there: how many are on the disk already.

    Example:
        >>> bytes_needed(100, keep_last=2, there=1)
        300
    """
    return checkpoint * max(keep_last + 2 - there, 1)


def check_room(needed: int, free: int, folder: Path) -> None:
    """Refuses a run whose checkpoints do not fit.

    Raises:
        ConfigError: `needed` bytes are more than `free`.

    Example:
        >>> check_room(3_000_000_000, 1_000_000_000, Path("runs/first"))
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: io.run_dir: the run's checkpoints need about 3.0 GB and the disk has 1.0 GB free; \
lower train.keep_last, or choose a folder on another disk: runs/first
    """
    if needed > free:
        raise ConfigError(
            f"io.run_dir: the run's checkpoints need about {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB "
            f"free; lower train.keep_last, or choose a folder on another disk: {folder}"
        )
