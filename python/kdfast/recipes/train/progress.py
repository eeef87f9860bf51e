"""What the loop knows of itself; all of it is in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: optimiser updates done.
        tokens: input tokens read.
        seconds: spent in steps.
        best_loss: lowest validation loss after training began (after quantisation began, once it has), and at which
            step it was.
        best_validation: the values of that validation.
        validations_since_best: validations since, without a lower loss.
        first_validation: the values before training.
        last_validation: the newest ones, and at which step they were taken.
        validated_step: step of `last_validation`; -1 = none.
        terms: loss term's entry -> what it remembers of earlier steps, as JSON values.
        qat: what the phase under quantisation remembers, see `QatPhase.state`; empty before it begins.

    Examples:
        >>> progress = Progress(step=8, best_loss=0.5, best_step=8)
        >>> progress.forget_best()
        >>> progress.step, progress.best_step
        (8, None)
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
    qat: dict[str, Any] = field(default_factory=dict)

    def restore(self, state: Mapping[str, Any], terms: Mapping[str, Any]) -> None:
        """Takes the values of a checkpoint, in place; older checkpoints lack newer ones.

        Args:
            state: what the checkpoint holds of the loop.
            terms: what the loss terms remember, see `Objective.states`.
        """
        fresh = Progress()
        for one in fields(Progress):
            setattr(self, one.name, state.get(one.name, getattr(fresh, one.name)))
        self.terms = dict(terms)

    def remember_best(self, values: dict[str, float]) -> None:
        """Takes a validation into account; one without a loss says nothing."""
        if "loss" not in values:
            return
        if self.best_loss is None or values["loss"] < self.best_loss:
            self.best_loss, self.best_step = values["loss"], self.step
            self.best_validation, self.validations_since_best = values, 0
        else:
            self.validations_since_best += 1

    def forget_best(self) -> None:
        """The best is counted anew from here: quantised and float losses do not compare."""
        self.best_loss = self.best_step = None
        self.best_validation, self.validations_since_best = {}, 0
