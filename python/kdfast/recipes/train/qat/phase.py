"""The steps of a run under quantisation: when scales freeze, what is checked, and what becomes of a failed check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn

from kdfast.config import Config
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.distributed.ranks import Ranks
from kdfast.errors import CheckpointError
from kdfast.qat import (
    CodeChanges,
    CodeWatch,
    Decision,
    Recovery,
    StabilityReport,
    apply_qat_to_model,
    check_qat_stability,
    clamp_weights,
    freeze_scales,
    frozen_scales,
    load_frozen_scales,
    remove_qat,
)
from kdfast.recipes.train.objective import Batch
from kdfast.recipes.train.schedule import learning_rate, learning_rate_under_qat
from kdfast.runs.checkpoint import Checkpoints

FILE = "qat.safetensors"
"""The file of a checkpoint with what the phase remembers of the weights' codes, and its frozen scales."""

_SCALES, _CODES = "scales.", "codes."


def probe_batch(config: Config, validation: KDDataset | None, train: KDDataset) -> Batch:
    """The rows on which every check of a run is made: the first held-out ones, or training rows if there are none."""
    data = train if validation is None else validation
    return collate_kd_batch(data.__getitems__(list(range(min(config.quant.probe_rows, len(data))))))


@dataclass
class QatPhase:
    """One run's phase under quantisation. After `gave_up` it only remembers that it failed; the model is float then.

    Attributes:
        config: the run's.
        student: the bare model, changed in place.
        probe: the rows of the checks.
        ranks: this process among the others; a check that fails on one has failed on all.
        recovery: decides what follows from a failure.
        watch: the weights' codes as they were; the first rank's.
        first: the check at the phase's beginning.
        previous: the newest check.
        checked_step: its step.
        event: the line of `metrics.jsonl` that tells how the phase came to where it is: began, went back, or given up.
        good_best: the best step as the last good state knows it; its checkpoint must be there after going back.
    """

    config: Config
    student: nn.Module
    probe: Batch
    ranks: Ranks
    recovery: Recovery
    watch: CodeWatch | None = None
    first: StabilityReport | None = None
    previous: StabilityReport | None = None
    checked_step: int = -1
    event: Mapping[str, Any] = field(default_factory=dict)
    good_best: int | None = None

    @classmethod
    def begin(cls, config: Config, student: nn.Module, probe: Batch, ranks: Ranks, step: int) -> Self:
        """Switches quantisation on.

        Args:
            config: the run's config.
            student: the bare model.
            probe: see `probe_batch`.
            ranks: this process among the others.
            step: optimiser updates done.

        Raises:
            ConfigError: blocks do not divide a tensor's width.
            QATError: the model cannot be quantised.
        """
        apply_qat_to_model(student, config.quant)
        recovery = Recovery.of(config.quant, first_step=step, last_step=config.train.num_steps)
        watch = CodeWatch(student) if ranks.main else None
        return cls(config, student, probe, ranks, recovery, watch)

    @classmethod
    def resume(
        cls,
        config: Config,
        student: nn.Module,
        probe: Batch,
        ranks: Ranks,
        saved: tuple[Mapping[str, Any], Mapping[str, Tensor]],
    ) -> Self:
        """The phase of a checkpoint; its student has been loaded.

        Args:
            config: the run's config.
            student: the bare model, still float.
            probe: see `probe_batch`.
            ranks: this process among the others.
            saved: what `state` and `tensors` gave.

        Raises:
            CheckpointError: the state is damaged.
            QATError: it is of another model.
        """
        phase = cls(config, student, probe, ranks, _recovery(saved[0]))
        phase.restore(*saved)
        phase.event = saved[0].get("event", {})
        return phase

    @property
    def active(self) -> bool:
        """Whether the model is under quantisation."""
        return not self.recovery.gave_up

    @property
    def first_step(self) -> int:
        """The first step (0-based) under quantisation: as many were done before."""
        return self.recovery.first_step

    def check_start(self, checkpoints: Checkpoints) -> None:
        """Checks that the float student of the phase's beginning is there: the end of the run needs it.

        Args:
            checkpoints: those of the run.

        Raises:
            CheckpointError: its checkpoint is gone.
        """
        if self.first_step not in checkpoints.steps():
            raise CheckpointError(
                "the checkpoint at which quantisation began is gone; put it back, or start a new run in another "
                f"io.run_dir: {checkpoints.path(self.first_step)}"
            )

    def state(self) -> dict[str, Any]:
        """What it remembers, as JSON values."""
        return {
            "recovery": self.recovery.state_dict(),
            "first": None if self.first is None else self.first.to_json(),
            "previous": None if self.previous is None else self.previous.to_json(),
            "checked_step": self.checked_step,
            "event": dict(self.event),
            "good_best": self.good_best,
        }

    def tensors(self) -> dict[str, Tensor]:
        """What it remembers of the weights, for the checkpoint's file."""
        if not self.active or self.watch is None:
            return {}
        scales = {_SCALES + name: one for name, one in frozen_scales(self.student).items()}
        return scales | {_CODES + name: one for name, one in self.watch.state_dict().items()}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Goes back to what `state` and `tensors` gave, but for the recovery, which never forgets a failure.

        The student must have the checkpoint's float weights.

        Raises:
            CheckpointError: the state is damaged.
            QATError: it is of another model.
        """
        try:
            self.first, self.previous = (
                None if state[name] is None else StabilityReport.from_json(state[name])
                for name in ("first", "previous")
            )
            self.checked_step, self.good_best = int(state["checked_step"]), state["good_best"]
        except (KeyError, TypeError) as cause:
            raise CheckpointError(
                f"the checkpoint's state of quantisation is damaged; resume from an older one: {cause!r}"
            ) from cause
        if not self.active:
            remove_qat(self.student)
            self.watch = None
            return
        apply_qat_to_model(self.student, self.config.quant, check_scales=False)
        self.restore_scales(tensors)
        if self.ranks.main:
            self.watch = self.watch or CodeWatch(self.student)
            self.watch.load_state_dict(_part(tensors, _CODES))

    def restore_scales(self, tensors: Mapping[str, Tensor]) -> None:
        """The frozen scales of a checkpoint of this phase; without any, they follow the weights."""
        load_frozen_scales(self.student, _part(tensors, _SCALES))

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step (0-based); once quantisation was given up it is the run's own."""
        if not self.active:
            return learning_rate(step, self.config.schedule_steps, self.config.optimizer)
        steps = self.config.train.num_steps
        rate = learning_rate_under_qat(step, self.first_step, steps, self.config.quant)
        return rate * self.recovery.rate_factor

    def freeze_when_due(self, step: int) -> bool:
        """Freezes the scales before a step (0-based) from which on they stay; whether it did so now.

        In a run that got more steps since they froze, they follow the weights again until that step.
        """
        start = self.config.quant.freeze_start(self.config.train.num_steps, self.first_step)
        if not self.active:
            return False
        frozen = bool(frozen_scales(self.student))
        if start is None or step < start:
            if frozen:
                load_frozen_scales(self.student, {})
            return False
        return not frozen and freeze_scales(self.student) > 0

    def stepped(self, step: int, loss: float) -> Decision:
        """After an optimiser update.

        Args:
            step: updates done, this one included.
            loss: the step's loss.
        """
        if self.active:
            clamp_weights(self.student)
        return self.recovery.stepped(step, loss)

    def check(self, step: int) -> Decision:
        """The check of a step; its numbers are in `previous` afterwards."""
        report = check_qat_stability(
            self.student, self.probe, self.config.quant, first=self.first, previous=self.previous
        )
        self.first, self.previous, self.checked_step = self.first or report, report, step
        return self.recovery.checked(
            step,
            passed=not self.ranks.any(not report.passed),
            reasons=report.reasons,
            float_is_finite=not self.ranks.any(report.non_finite_float > 0),
        )

    def saved(self, step: int, best_step: int | None) -> None:
        """A checkpoint is being written; what it says of the phase is right if the write succeeds.

        Args:
            step: optimiser updates done.
            best_step: the step with the lowest held-out loss so far.
        """
        self.recovery.saved(step)
        if self.recovery.good_step == step:
            self.good_best = best_step

    @property
    def kept_steps(self) -> set[int]:
        """Steps whose checkpoints must not be removed."""
        steps = {self.first_step, self.recovery.good_step}
        return steps if self.good_best is None else steps | {self.good_best}

    def look(self) -> CodeChanges | None:
        """What became of the codes since the phase began; None once it was given up, and on other ranks."""
        return None if self.watch is None or not self.active else self.watch.look(self.student)

    def give_up(self) -> None:
        """Takes quantisation off the model."""
        remove_qat(self.student)
        self.watch = None


def _recovery(state: Mapping[str, Any]) -> Recovery:
    if "recovery" not in state:
        raise CheckpointError(
            "the checkpoint's state of quantisation is damaged; resume from an older one: no recovery"
        )
    return Recovery.from_state(state["recovery"])


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
