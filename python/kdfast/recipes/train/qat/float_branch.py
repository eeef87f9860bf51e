"""The control of an experiment: the steps of the phase under quantisation once more, in float."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.config import Config
from kdfast.recipes.train.batches import MicroBatches
from kdfast.recipes.train.loop import Loop
from kdfast.recipes.train.optimizer import adamw
from kdfast.recipes.train.schedule import learning_rate_under_qat
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.recipes.train.update import update
from kdfast.runs.checkpoint import load_checkpoint
from kdfast.student import load_student


def train_float_branch(path: Path, model: StudentLoss, loop: Loop) -> nn.Module:
    """Trains the float student of the phase's beginning on the same rows, by the same losses and learning rates.

    Args:
        path: the checkpoint at which quantisation began.
        model: the run's losses around a student of its own, see `branch_student`.
        loop: the run's, after its last step; nothing of it is changed.

    Returns:
        the float student after as many steps as the run made.

    Raises:
        CheckpointError: the checkpoint is gone or damaged.
        DivergedError: a loss or a gradient is not finite.
    """
    config, runner = loop.config, loop.runner
    optimizer = adamw(model, config.optimizer)
    state = load_checkpoint(path, model.student, optimizer, terms=model.terms)
    sampler, first, last = copy.deepcopy(loop.sampler), int(state["step"]), loop.progress.step
    sampler.load_state_dict(state["sampler"])
    wrapped: nn.Module = DistributedDataParallel(model) if runner.ranks.world > 1 else model
    beside = Runner(wrapped, model.objective, runner.device, runner.autocast, runner.ranks)
    terms = dict(model.objective.states(state))
    batches = MicroBatches(
        loop.train_data,
        sampler,
        runner.ranks,
        micro_batch_size=config.train.micro_batch_size,
        first_step=first,
        num_steps=last,
        workers=config.data.workers,
    )
    with loop.display.working("float", last - first) as on_progress:
        for step in range(first, last):
            rate = learning_rate_under_qat(step, first, config.train.num_steps, config.quant)
            for group in optimizer.param_groups:
                group["lr"] = rate
            _, rows = batches.take(step)
            report = update(beside, optimizer, rows, step, terms, config.optimizer.max_grad_norm)
            terms = dict(report.states)
            on_progress(step + 1 - first, f"loss {report.values['loss']:.4f}")
    student: nn.Module = model.student
    return student


def branch_student(path: Path, config: Config, runner: Runner) -> Any:
    """The float student of the phase's beginning, on the run's device.

    Raises:
        CheckpointError: the checkpoint is gone or damaged.
    """
    student: Any = load_student(path, freeze_embeddings=config.arch.freeze_embeddings)
    return student.to(runner.device)
