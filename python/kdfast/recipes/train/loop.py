"""The loop: steps, validations, checkpoints, until the last step or a request to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.errors import DivergedError
from kdfast.qat import Action, Decision, should_enable_qat
from kdfast.recipes.train.batches import MicroBatches
from kdfast.recipes.train.events import Callback, TrainEvent, tell
from kdfast.recipes.train.final import remove_undone_results
from kdfast.recipes.train.progress import Progress
from kdfast.recipes.train.qat.events import QatEvents
from kdfast.recipes.train.qat.going_back import go_back
from kdfast.recipes.train.qat.phase import FILE, QatPhase, probe_batch
from kdfast.recipes.train.qat.self_teaching import float_is_finite, start_self_teaching, stop_self_teaching
from kdfast.recipes.train.same_inputs import STATE_KEY
from kdfast.recipes.train.schedule import learning_rate
from kdfast.recipes.train.speed import SpeedProbe
from kdfast.recipes.train.step import Runner
from kdfast.recipes.train.update import update
from kdfast.recipes.train.validate import validate
from kdfast.runs.checkpoint import Checkpoints
from kdfast.runs.folder import RunFolder
from kdfast.runs.metrics import MetricsLog
from kdfast.shapes import StepSampler
from kdfast.stop import StopRequest

_GO_ON = Decision(Action.GO_ON)


@dataclass
class Loop:
    """One run's moving parts; `progress` is updated in place, `inputs` name what the run reads.

    The callbacks are called on the first rank only. `phase` is there from quantisation's first step on.
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
    phase: QatPhase | None = None

    def __post_init__(self) -> None:
        self._asked_to_stop = False
        self._events = QatEvents(self.log, self.display, self.runner.ranks.main)

    def run(self) -> bool:
        """Trains to the last step, or until `train.stop_after_validations` ends it.

        Returns:
            False when it was asked to stop before (the state is saved then).
        """
        train = self.config.train
        if self.phase is not None:
            self._events.repair(self.phase)
            if self.phase.active:
                self._teach_by_itself(self.phase)
        with StopRequest() as stop, self.display.training(train.num_steps, self.progress.step):
            self._follow(self._validate_when_due())
            batches = self._batches()
            while not self._finished():
                self._begin_quantisation_when_due()
                decision = self._step(batches)
                if decision.action is Action.GO_ON:
                    decision = self._validate_when_due()
                went_back = self._follow(decision)
                if went_back:
                    batches = self._batches()
                stopped = self.runner.ranks.any(stop.requested or self._asked_to_stop)
                best = self.progress.best_step == self.progress.step
                due = best or self._finished() or self._due(train.checkpoint_every_steps)
                if stopped or (due and not went_back):
                    self.save()
                if stopped:
                    return False
        return True

    def _batches(self) -> MicroBatches:
        """The micro-batches from the current step on."""
        return MicroBatches(
            self.train_data,
            self.sampler,
            self.runner.ranks,
            micro_batch_size=self.config.train.micro_batch_size,
            first_step=self.progress.step,
            num_steps=self.config.train.num_steps,
            workers=self.config.data.workers,
        )

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

    def _begin_quantisation_when_due(self) -> None:
        """Begins the phase at its step; its checkpoint is the target of rollbacks and the float student in one."""
        config, step = self.config, self.progress.step
        if self.phase is not None or not should_enable_qat(step, config.train.num_steps, config.quant):
            return
        probe = probe_batch(config, self.validation_data, self.train_data)
        self.phase = QatPhase.begin(config, self.student, probe, self.runner.ranks, step)
        self.progress.forget_best()
        decision = self.phase.check(step)
        self._events.begins(self.phase)
        self.save()
        self._events.began(self.phase)
        if not self._follow(decision):
            self._teach_by_itself(self.phase)

    def _teach_by_itself(self, phase: QatPhase) -> None:
        """Makes the float student of the phase's beginning a second teacher, if the config says so."""
        if self.config.quant.self_weight:
            self.runner = start_self_teaching(
                self.runner, self.config, self.checkpoints.path(phase.first_step)
            )

    def _follow(self, decision: Decision) -> bool:
        """Goes on, goes back to an earlier step, or ends the run by its own error.

        Returns:
            whether it went back.

        Raises:
            DivergedError: the float weights fail too.
        """
        if decision.action is Action.GO_ON:
            return False
        if decision.action is Action.STOP or decision.to_step is None or self.phase is None:
            raise DivergedError(
                f"training diverged: {decision.reason}; go back to a checkpoint (--resume) and lower "
                "quant.learning_rate or optimizer.learning_rate"
            )
        main = self.runner.ranks.main
        if main:
            remove_undone_results(RunFolder(self.checkpoints.directory.parent), decision.to_step)
        if decision.action is Action.GIVE_UP:
            self.phase.give_up()
            self.runner = stop_self_teaching(self.runner)
        go_back(
            self.checkpoints.path(decision.to_step),
            self.student,
            self.optimizer,
            self.runner,
            self.progress,
            self.sampler,
            self.phase,
        )
        self._events.goes_back(self.phase, decision)
        self.runner.ranks.wait()  # all have read what is replaced now
        self.save(prune=False)
        if main:
            self.checkpoints.remove_after(self.progress.step)
        self._events.went_back(self.phase, decision)
        return True

    def _step(self, batches: MicroBatches) -> Decision:
        config, progress, phase = self.config, self.progress, self.phase
        started = time.perf_counter()
        rate = learning_rate(progress.step, config.schedule_steps, config.optimizer)
        if phase is not None:
            rate = phase.learning_rate(progress.step)
            if phase.freeze_when_due(progress.step):
                self._events.froze(progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        shape, micro_batches = batches.take(progress.step)
        limit = config.optimizer.max_grad_norm
        try:
            report = update(self.runner, self.optimizer, micro_batches, progress.step, progress.terms, limit)
        except DivergedError as error:
            progress.step += 1  # the step that failed; going back, or the error, undoes it
            finite = float_is_finite(self.runner, self.student, micro_batches, progress)
            return self._not_finite(error, "the loss or its gradient", finite)
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
        decision = _GO_ON if phase is None else phase.stepped(progress.step, values["loss"])
        self._tell(TrainEvent(kind="step", step=progress.step, values=values, student=self.student))
        return decision

    def _validate_when_due(self) -> Decision:
        """Validates, and under quantisation checks; gives what follows from the check."""
        progress, train = self.progress, self.config.train
        due = progress.step == 0 or self._due(train.validate_every_steps)
        decision = self._check() if due else _GO_ON
        if self.validation_data is None or not due or progress.validated_step == progress.step:
            return decision
        if decision.action is not Action.GO_ON:
            return decision
        try:
            with self.display.validating(train.validation_rows or len(self.validation_data)) as on_progress:
                values = validate(
                    self.runner,
                    self.validation_data,
                    rows=train.validation_rows,
                    micro_batch_size=train.micro_batch_size,
                    on_progress=on_progress,
                )
        except DivergedError as error:
            return self._not_finite(error, "the held-out loss", None)
        progress.first_validation = progress.first_validation or values
        progress.last_validation, progress.validated_step = values, progress.step
        if progress.step:
            progress.remember_best(values)
        if self.runner.ranks.main:
            self.log.write("validation", progress.step, values)
            self.display.validation(progress.step, values)
            if self.speed is not None:
                self.speed.run_when_due(progress.step, self.log, self.display)
        self._tell(TrainEvent(kind="validation", step=progress.step, values=values, student=self.student))
        return decision

    def _check(self) -> Decision:
        """The check of the model under quantisation, once a step (the phase's beginning has its own)."""
        phase, step = self.phase, self.progress.step
        if phase is None or not phase.active or phase.checked_step == step:
            return _GO_ON
        decision = phase.check(step)
        self._events.checked(phase)
        return decision

    def _not_finite(self, error: DivergedError, what: str, float_is_finite: bool | None) -> Decision:
        """What follows from numbers that are not finite.

        Raises:
            DivergedError: the given one: the model is not under quantisation, or float has the same fault.
        """
        phase = self.phase
        if phase is None or not phase.active:
            raise error
        decision = phase.recovery.not_finite(self.progress.step, what, float_is_finite=float_is_finite)
        if decision.action is Action.STOP:
            raise error
        return decision

    def save(self, *, prune: bool = True) -> None:
        """Writes a checkpoint of the current step (rank 0 writes, all wait), and removes older ones."""
        phase, progress = self.phase, self.progress
        keep = {progress.best_step} if progress.best_step is not None else set()
        if phase is not None:
            phase.saved(progress.step, progress.best_step)
            progress.qat = phase.state()
            keep |= phase.kept_steps
        if self.runner.ranks.main:
            state = {
                **asdict(progress),
                "sampler": self.sampler.state_dict(progress.step),
                STATE_KEY: self.inputs,
            }
            tensors = phase.tensors() if phase is not None else {}
            path = self.checkpoints.save(
                progress.step,
                self.student,
                self.optimizer,
                state,
                terms=self.runner.bare.terms,
                further={FILE: tensors} if tensors else None,
            )
            if prune:
                self.checkpoints.prune(self.config.train.keep_last, keep)
            self._tell(TrainEvent(kind="checkpoint", step=progress.step, student=self.student, path=path))
        self.runner.ranks.wait()
