"""What a loop does when training under quantisation goes wrong: decisions only, no model and no files.

The loop reports events and does what the answer says:

    saved(step)                     a checkpoint of this step is on the disk
    checked(step, ...)              the stability check of this step
    stepped(step, loss)             one optimiser step, with a finite loss
    not_finite(step, ...)           a loss or gradient that is not finite

`ROLL_BACK` means: load the checkpoint of `to_step` (weights, optimiser, sampler, random states), multiply the learning
rate by `rate_factor`, and write this object's state into that checkpoint. Otherwise a run that is resumed from there
would not know that it was rolled back.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kdfast.config.quant import QuantConfig
from kdfast.errors import CheckpointError


class Action(enum.StrEnum):
    """What the loop does next."""

    GO_ON = "go_on"
    ROLL_BACK = "roll_back"
    GIVE_UP = "give_up"
    STOP = "stop"


@dataclass(frozen=True)
class Decision:
    """An action with what it needs.

    Attributes:
        action: `GO_ON`; `ROLL_BACK` to the checkpoint of `to_step`; `GIVE_UP`: load that checkpoint, remove the
            quantisation and finish in float; `STOP`: the float model fails too, so this is the run's own error.
        reason: why, in words; "" with `GO_ON`.
        to_step: the step of the checkpoint to load.
        rate_factor: multiplies the learning rate of the schedule, from now on.
    """

    action: Action
    reason: str = ""
    to_step: int | None = None
    rate_factor: float = 1.0


@dataclass
class Recovery:
    """The state machine of one phase. All of it is in the checkpoint (`state_dict`).

    Attributes:
        first_step: steps that were done when the phase began; a checkpoint of it exists and is never removed.
        last_step: steps of the run, as known when the phase began: they fix how long its first tenth is.
        max_rollbacks: after this many the phase is given up.
        diverging_ratio: a loss above this multiple of its mean over the first tenth is too high.
        diverging_steps: this many such steps in a row diverge.
        good_step: step of the last good state: saved, and its check passed.
        rollbacks: rollbacks so far.
        gave_up: whether the run goes on in float.
        history: the reason of every rollback and of giving up.

    Example:
        >>> recovery = Recovery(first_step=80, last_step=100)
        >>> decision = recovery.checked(85, passed=False, reasons=["cosine"])
        >>> decision.action.value, decision.to_step, decision.rate_factor
        ('roll_back', 80, 0.5)
    """

    first_step: int
    last_step: int
    max_rollbacks: int = 2
    diverging_ratio: float = 2.0
    diverging_steps: int = 10
    good_step: int = -1
    rollbacks: int = 0
    gave_up: bool = False
    history: list[str] = field(default_factory=list)
    _first_losses: dict[int, float] = field(default_factory=dict)
    _too_high: int = 0
    _saved: int | None = None
    _passed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.first_step < self.last_step:
            raise ValueError(
                f"the phase must have a step: first_step {self.first_step}, last_step {self.last_step}"
            )
        self.good_step = max(self.good_step, self.first_step)

    @classmethod
    def of(cls, config: QuantConfig, *, first_step: int, last_step: int) -> Recovery:
        """The state machine at the phase's first step."""
        return cls(
            first_step=first_step,
            last_step=last_step,
            max_rollbacks=config.max_rollbacks,
            diverging_ratio=config.diverging_ratio,
            diverging_steps=config.diverging_steps,
        )

    @property
    def rate_factor(self) -> float:
        """What multiplies the learning rate: a half for each rollback; 1 once the run goes on in float."""
        return 1.0 if self.gave_up else 0.5**self.rollbacks

    @property
    def tenth_steps(self) -> int:
        """Steps of the phase's first tenth, and at least `diverging_steps`: the mean of fewer is too noisy."""
        return max(math.ceil((self.last_step - self.first_step) / 10), self.diverging_steps)

    def saved(self, step: int) -> None:
        """A checkpoint of a step was written. It is a good state if the check of the same step passed."""
        self._saved = step
        self._remember_good()

    def checked(
        self, step: int, *, passed: bool, reasons: Sequence[str] = (), float_is_finite: bool = True
    ) -> Decision:
        """The stability check of a step.

        Args:
            step: optimiser updates done.
            passed: the report's `passed`; false also for a check that could not be made.
            reasons: the report's.
            float_is_finite: whether the model without quantisation gives finite numbers.
        """
        if self.gave_up:
            return Decision(Action.GO_ON, rate_factor=self.rate_factor)
        if passed:
            self._passed = step
            self._remember_good()
            return Decision(Action.GO_ON, rate_factor=self.rate_factor)
        reason = f"the check at step {step} failed: {'; '.join(reasons) or 'it gave no reason'}"
        return self._fail(step, reason) if float_is_finite else self._stop(reason)

    def stepped(self, step: int, loss: float) -> Decision:
        """One optimiser step.

        Args:
            step: optimiser updates done, this one included.
            loss: the step's loss.
        """
        if not math.isfinite(loss):
            raise ValueError(f"a loss that is not finite is reported by not_finite: step {step}, {loss}")
        if self.gave_up:
            return Decision(Action.GO_ON, rate_factor=self.rate_factor)
        if step <= self.first_step + self.tenth_steps:
            self._first_losses[step] = loss
            return Decision(Action.GO_ON, rate_factor=self.rate_factor)
        known = self._first_losses.values()
        mean = math.fsum(known) / len(known) if known else math.inf
        self._too_high = self._too_high + 1 if loss > self.diverging_ratio * mean else 0
        if self._too_high < self.diverging_steps:
            return Decision(Action.GO_ON, rate_factor=self.rate_factor)
        return self._fail(
            step,
            f"the loss diverges: {self._too_high} steps in a row up to step {step} above {self.diverging_ratio} times "
            f"{mean:.4g}, its mean over the first {len(known)} steps under quantisation; now {loss:.4g}",
        )

    def not_finite(self, step: int, what: str, *, float_is_finite: bool | None) -> Decision:
        """A loss or gradient that is NaN or infinite; no weight was changed by it.

        Args:
            step: the step that was being made.
            what: what is not finite, in words, such as "the loss".
            float_is_finite: whether the same batch gives a finite one without quantisation; None = not known, which
                counts as yes: the run may then not end as the float model's error.
        """
        reason = f"{what} at step {step} is not finite"
        if self.gave_up or float_is_finite is False:
            return self._stop(reason)
        return self._fail(step, reason)

    def _remember_good(self) -> None:
        if self._saved is not None and self._saved == self._passed and not self._too_high:
            self.good_step = max(self.good_step, self._saved)

    def _stop(self, reason: str) -> Decision:
        return Decision(Action.STOP, f"{reason}; the float weights do so too", rate_factor=self.rate_factor)

    def _fail(self, step: int, reason: str) -> Decision:
        self.history.append(reason)
        self._too_high, self._saved, self._passed = 0, None, None
        if step <= self.good_step or self.rollbacks >= self.max_rollbacks:
            why = (
                f"given up after {self.rollbacks} rollbacks, the run"
                if step > self.good_step
                else "a rollback would end in the same state, so the run"
            )
            self.gave_up = True
            return Decision(
                Action.GIVE_UP, f"{reason}; {why} ends in float", self.first_step, self.rate_factor
            )
        self.rollbacks += 1
        self._first_losses = {
            step: loss for step, loss in self._first_losses.items() if step <= self.good_step
        }
        return Decision(Action.ROLL_BACK, reason, self.good_step, self.rate_factor)

    def state_dict(self) -> dict[str, Any]:
        """All of it as JSON values.

        Example:
            >>> recovery = Recovery(first_step=0, last_step=20)
            >>> Recovery.from_state(recovery.state_dict()) == recovery
            True
        """
        state = asdict(self)
        state["_first_losses"] = [[step, loss] for step, loss in self._first_losses.items()]
        return {name.removeprefix("_"): value for name, value in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Recovery:
        """The inverse of `state_dict`.

        Raises:
            CheckpointError: the state is not one that `state_dict` gave.
        """
        private = {"first_losses", "too_high", "saved", "passed"}
        try:
            known = {name: value for name, value in state.items() if name not in private}
            found = cls(**known)
            found._first_losses = {int(step): float(loss) for step, loss in state["first_losses"]}
            found._too_high, found._saved, found._passed = (
                state["too_high"],
                state["saved"],
                state["passed"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint's state of quantisation is damaged; resume from an older one: {error!r}"
            ) from error
        return found
