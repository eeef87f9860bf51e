"""Going back to a checkpoint inside a run: weights, optimiser, sampler, random states and all that the loop knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdfast.recipes.train.progress import Progress
from kdfast.recipes.train.qat.phase import FILE, QatPhase
from kdfast.recipes.train.step import Runner
from kdfast.runs.checkpoint import load_checkpoint, read_tensors
from kdfast.shapes import StepSampler
from kdfast.student import load_student


def go_back(
    path: Path,
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    runner: Runner,
    progress: Progress,
    sampler: StepSampler,
    phase: QatPhase,
) -> None:
    """Restores everything in place; a run that is resumed from the checkpoint would be in the same state.

    Args:
        path: the checkpoint's directory.
        student: the bare model.
        optimizer: its optimiser.
        runner: the loss terms' own parameters and what they remember are its objective's.
        progress: the run's.
        sampler: the run's.
        phase: the phase under quantisation; what it knows of failures stays.

    Raises:
        CheckpointError: the checkpoint is gone or damaged.
    """
    loaded: Any = load_student(path)
    student.load_state_dict(loaded.state_dict())
    state = load_checkpoint(path, student, optimizer, terms=runner.bare.terms)
    progress.restore(state, runner.objective.states(state))
    sampler.load_state_dict(state["sampler"])
    phase.restore(progress.qat, read_tensors(path, FILE))
