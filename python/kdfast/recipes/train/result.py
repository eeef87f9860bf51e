"""What `kdfast.train` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdfast.exit_codes import INTERRUPTED


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    Attributes:
        exit_code: that of `kdfast train`: 0 done; 3 too few right or too many false calls (limits of `train`),
            a failed gate (`train.fail_on_gate`) or quantisation that was given up (`quant.fail_on_unstable`); 130
            stopped and resumable.
        step: optimiser updates done.
        run_dir: the run folder.
        student: the finished student, a Hugging Face directory; None = the run was stopped, or another rank wrote it.
        student_step: the step that its weights are of: `step`, or `best_step` with `io.final: best`.
        best_step: the step with the lowest held-out loss; None = never validated.
        validation: the newest validation's values.
        best_validation: those at `best_step`.
        evaluation: the evaluation by generation after training, as in `evaluation_after.json`; None = there was none.
        qat: "done": the student is quantised as it was trained; "failed": quantisation was given up and it is float;
            None = it was not asked for, or the run was stopped.

    Examples:
        >>> TrainResult(exit_code=0, step=8, run_dir=Path("runs/first")).finished
        True
    """

    exit_code: int
    step: int
    run_dir: Path
    student: Path | None = None
    student_step: int | None = None
    best_step: int | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    best_validation: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    qat: Literal["done", "failed"] | None = None

    @property
    def finished(self) -> bool:
        """Whether the run reached its end (it may still have failed a gate)."""
        return self.exit_code != INTERRUPTED
