"""Self-distillation under quantisation: the float student as it was when the phase began teaches the quantised one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdfast.config import Config
from kdfast.errors import DivergedError
from kdfast.qat import float_weights
from kdfast.recipes.train.live_teacher import FrozenTeacher
from kdfast.recipes.train.objective import Batch
from kdfast.recipes.train.progress import Progress
from kdfast.recipes.train.step import Runner
from kdfast.student import load_student


def start_self_teaching(runner: Runner, config: Config, path: Path) -> Runner:
    """Gives the student a second teacher: the float student of a checkpoint.

    Args:
        runner: the run's; its bare model gets the teacher.
        config: the run's config.
        path: the checkpoint at which quantisation began.

    Returns:
        the runner with the term `self_kl` in its objective.

    Raises:
        CheckpointError: the checkpoint is gone or damaged.
    """
    with torch.random.fork_rng(
        devices=[]
    ):  # a resumed run loads it too: it must not draw from the run's numbers
        teacher: Any = load_student(path)
    objective = runner.objective.with_self_teaching(config.quant.self_weight, config.quant.task_factor)
    runner.bare.self_teacher = FrozenTeacher(teacher.to(runner.device))
    runner.bare.objective = objective
    return replace(runner, objective=objective)


def stop_self_teaching(runner: Runner) -> Runner:
    """The runner without that teacher; one that has none stays as it is."""
    objective = runner.objective.with_self_teaching(0.0, 1.0)
    runner.bare.self_teacher = None
    runner.bare.objective = objective
    return replace(runner, objective=objective)


def float_is_finite(runner: Runner, student: nn.Module, batches: list[Batch], progress: Progress) -> bool:
    """Whether a step that failed under quantisation gives a finite loss and gradient without it; nothing is updated.

    Args:
        runner: the run's.
        student: the bare model, under quantisation.
        batches: the micro-batches of the step.
        progress: the run's; its step is the one that failed, 1-based.
    """
    parameters = [one for one in runner.bare.parameters() if one.requires_grad]
    try:
        with float_weights(student):
            runner.step(batches, progress.step - 1, progress.terms)
        norms = [one.grad.norm() for one in parameters if one.grad is not None]
        return math.isfinite(float(torch.stack(norms).norm()))
    except DivergedError:
        return False
    finally:
        for one in parameters:
            one.grad = None
