"""What a run tells its callbacks: every step, validation and checkpoint, and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn


@dataclass(frozen=True, kw_only=True)
class TrainEvent:
    """Something that happened in a run.

    Attributes:
        kind: "step" (after an optimiser update), "validation", "checkpoint" (one was written) or "end" (the run is
            over: finished or stopped).
        step: optimiser updates done.
        values: the numbers that `metrics.jsonl` gets: of a step its losses, `learning_rate`, `grad_norm`, ...; of a
            validation and of the end those of the newest validation; of a checkpoint none.
        student: the model, as it is now. It is the one that is trained: do not change it.
        path: the directory of the checkpoint, or at the end that of the finished student; None for the other kinds, and
            at the end of a run that was stopped.

    Examples:
        >>> event = TrainEvent(kind="step", step=8, values={"loss": 0.5}, student=nn.Linear(1, 1))
        >>> event.kind, event.step, event.values["loss"]
        ('step', 8, 0.5)
    """

    kind: Literal["step", "validation", "checkpoint", "end"]
    step: int
    values: Mapping[str, float] = field(default_factory=dict)
    student: nn.Module
    path: Path | None = None


Callback = Callable[[TrainEvent], object]
"""Called with each event, on the first rank only. If it returns True, the run stops after this step: it saves a
checkpoint and can be resumed. An error that it raises ends the run."""


def tell(callbacks: Sequence[Callback], event: TrainEvent) -> bool:
    """Calls every callback.

    Returns:
        whether one of them asks the run to stop.

    Examples:
        >>> event = TrainEvent(kind="step", step=8, student=nn.Linear(1, 1))
        >>> tell([lambda event: event.step == 8, lambda event: print(event.kind)], event)
        step
        True
    """
    answers = [callback(event) for callback in callbacks]
    return any(answer is True for answer in answers)
