"""The loop: steps, validations, checkpoints, until the last step or a request to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.recipes.train.batches import MicroBatches
from kdfast.recipes.train.events import Callback, TrainEvent, tell
from kdfast.recipes.train.same_inputs import STATE_KEY
from kdfast.recipes.train.schedule import learning_rate
from kdfast.recipes.train.speed import SpeedProbe
from kdfast.recipes.train.step import Runner
from kdfast.recipes.train.update import update
from kdfast.recipes.train.validate import validate
from kdfast.runs.checkpoint import Checkpoints
from kdfast.runs.metrics import MetricsLog
from kdfast.shapes import StepSampler
from kdfast.stop import StopRequest


@dataclass
class Progress:
    """What the loop knows of itself; all of it is in the checkpoint.

    Attributes:
        step: optimiser updates done.
        tokens: input tokens read.
        seconds: spent in steps.
        best_loss: lowest validation loss after training began, and at which step it was.
        best_validation: the values of that validation.
        validations_since_best: validations since, without a lower loss.
        first_validation: the values before training.
        last_validation: the newest ones, and at which step they were taken.
        validated_step: step of `last_validation`; -1 = none.
        terms: loss term's entry -> what it remembers of earlier steps, as JSON values.
    """

    step: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    best_validation: dict[str, float] = field(default_factory=dict)
    validations_since_best: int = 0
    first_validation: dict[str, float] = field(default_factory=dict)
    last_validation: dict[str, float] = field(default_factory=dict)
    validated_step: int = -1
    terms: dict[str, Any] = field(default_factory=dict)


@dataclass
class Loop:
    """One run's moving parts; `progress` is updated in place, `inputs` name what the run reads.

    The callbacks are called on the first rank only.
    """

    config: Config
    runner: Runner
    student: nn.Module
    optimizer: torch.optim.AdamW
    sampler: StepSampler
    train_data: KDDataset
    validation_data: KDDataset | None
    checkpoints: Checkpoints
    progress: Progress
    inputs: dict[str, str]
    log: MetricsLog
    display: Display
    speed: SpeedProbe | None = None
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        self._asked_to_stop = False

    def run(self) -> bool:
        """Trains to the last step, or until `train.stop_after_validations` ends it.

        Returns:
            False when it was asked to stop before (the state is saved then).
        """
        train = self.config.train
        batches = MicroBatches(
            self.train_data,
            self.sampler,
            self.runner.ranks,
            micro_batch_size=train.micro_batch_size,
            first_step=self.progress.step,
            num_steps=train.num_steps,
            workers=self.config.data.workers,
        )
        with StopRequest() as stop, self.display.training(train.num_steps, self.progress.step):
            self._validate_when_due()
            while not self._finished():
                self._step(batches)
                self._validate_when_due()
                stopped = self.runner.ranks.any(stop.requested or self._asked_to_stop)
                best = self.progress.best_step == self.progress.step
                if stopped or best or self._finished() or self._due(train.checkpoint_every_steps):
                    self.save()
                if stopped:
                    return False
        return True

    def _finished(self) -> bool:
        progress, train = self.progress, self.config.train
        return progress.step >= train.num_steps or progress.validations_since_best >= (
            train.stop_after_validations or math.inf
        )

    def _due(self, every: int) -> bool:
        last = self.progress.step == self.config.train.num_steps
        return last or (every > 0 and self.progress.step % every == 0)

    def _tell(self, event: TrainEvent) -> None:
        """Calls the callbacks; one that returns True stops the run after this step."""
        if self.runner.ranks.main:
            self._asked_to_stop |= tell(self.callbacks, event)

    def _step(self, batches: MicroBatches) -> None:
        config, progress = self.config, self.progress
        started = time.perf_counter()
        rate = learning_rate(progress.step, config.schedule_steps, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        shape, micro_batches = batches.take(progress.step)
        limit = config.optimizer.max_grad_norm
        report = update(self.runner, self.optimizer, micro_batches, progress.step, progress.terms, limit)
        values = report.values
        seconds = time.perf_counter() - started
        progress.step += 1
        progress.terms = dict(report.states)
        progress.tokens += values["tokens"]
        progress.seconds += seconds
        values |= {
            "learning_rate": rate,
            "shape": float(shape),
            "seconds": seconds,
            "tokens_per_second": values["tokens"] / seconds,
        }
        if self.runner.ranks.main:
            if progress.step % config.train.log_every_steps == 0 or self._due(0):
                self.log.write("train", progress.step, values)
            self.display.step(progress.step, values)
        self._tell(TrainEvent(kind="step", step=progress.step, values=values, student=self.student))

    def _validate_when_due(self) -> None:
        progress, train = self.progress, self.config.train
        due = progress.step == 0 or self._due(train.validate_every_steps)
        if self.validation_data is None or not due or progress.validated_step == progress.step:
            return
        with self.display.validating(train.validation_rows or len(self.validation_data)) as on_progress:
            values = validate(
                self.runner,
                self.validation_data,
                rows=train.validation_rows,
                micro_batch_size=train.micro_batch_size,
                on_progress=on_progress,
            )
        progress.first_validation = progress.first_validation or values
        progress.last_validation, progress.validated_step = values, progress.step
        if progress.step:
            self._remember_best(values)
        if self.runner.ranks.main:
            self.log.write("validation", progress.step, values)
            self.display.validation(progress.step, values)
            if self.speed is not None:
                self.speed.run_when_due(progress.step, self.log, self.display)
        self._tell(TrainEvent(kind="validation", step=progress.step, values=values, student=self.student))

    def _remember_best(self, values: dict[str, float]) -> None:
        progress = self.progress
        if progress.best_loss is None or values["loss"] < progress.best_loss:
            progress.best_loss, progress.best_step = values["loss"], progress.step
            progress.best_validation, progress.validations_since_best = values, 0
        else:
            progress.validations_since_best += 1

    def save(self) -> None:
        """Writes a checkpoint of the current step (rank 0 writes, all wait)."""
        if self.runner.ranks.main:
            state = {
                **asdict(self.progress),
                "sampler": self.sampler.state_dict(self.progress.step),
                STATE_KEY: self.inputs,
            }
            path = self.checkpoints.save(
                self.progress.step, self.student, self.optimizer, state, terms=self.runner.bare.terms
            )
            self.checkpoints.prune(self.config.train.keep_last, self.progress.best_step)
            self._tell(
                TrainEvent(kind="checkpoint", step=self.progress.step, student=self.student, path=path)
            )
        self.runner.ranks.wait()
