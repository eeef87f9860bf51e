"""The end of a phase under quantisation: the weights become what ships, with their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from kdfast.config import Config
from kdfast.qat import convert_qat
from kdfast.quantized import QuantizedTable, plan_model
from kdfast.recipes.train.qat.phase import FILE, QatPhase
from kdfast.runs.checkpoint import Checkpoints, read_tensors

FEW_CODES = 0.01
"""A phase that changes a smaller share of the codes is warned of: scales and norms alone may have moved."""


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """How the phase ended.

    Attributes:
        status: "done", or "failed" when it had to be given up and the student is float.
        reasons: why it went back, each time.
        changed_fraction: share of the codes that training changed; None = not known.
        table: codes and scales of what ships; None = nothing is quantised.
    """

    status: Literal["done", "failed"]
    reasons: tuple[str, ...]
    changed_fraction: float | None
    table: QuantizedTable | None

    @property
    def failed(self) -> bool:
        """Whether the student is float though it was to be quantised."""
        return self.status == "failed"

    def origin(self, config: Config) -> dict[str, Any]:
        """What the student's file says of it, beside the step that its weights are of."""
        quant = config.quant
        if self.table is None:
            return {"qat": self.status, "reasons": list(self.reasons)}
        return {
            "qat": self.status,
            "format": quant.format,
            "embeddings": quant.embedding_format,
            "table": self.table.fingerprint(),
        }


def ship(student: nn.Module, phase: QatPhase, checkpoints: Checkpoints, step: int, last_step: int) -> Shipped:
    """Turns the student into what ships, in place: plain layers with the weights q * s.

    Args:
        student: the bare model, with the weights of a step.
        phase: its phase.
        checkpoints: those of the run.
        step: the step of the weights.
        last_step: the run's newest step; of another one, the checkpoint knows the scales.

    Raises:
        CheckpointError: the checkpoint is damaged.
        QATError: a weight is not finite, or the table is not the planned one.
    """
    reasons = tuple(phase.recovery.history)
    if not phase.active:
        return Shipped(status="failed", reasons=reasons, changed_fraction=None, table=None)
    if step != last_step:
        phase.restore_scales(read_tensors(checkpoints.path(step), FILE))
    changes = phase.look()
    plan = plan_model(student, phase.config.quant)
    table = convert_qat(student).table
    table.check_plan(plan)
    return Shipped(
        status="done",
        reasons=reasons,
        changed_fraction=None if changes is None else changes.changed_fraction,
        table=table,
    )


def few_codes_warning(shipped: Shipped, config: Config) -> str:
    """What to say of a phase that changed almost nothing; "" = it changed enough.

    Args:
        shipped: how the phase ended.
        config: the run's config.
    """
    changed = shipped.changed_fraction
    if changed is None or changed >= FEW_CODES:
        return ""
    return (
        f"quantisation-aware training changed {changed:.2%} of the codes, which is little; see below whether it gained "
        "over quantising after training, and if not, train longer under quantisation (quant.start_fraction, now "
        f"{config.quant.start_fraction:g}) or raise quant.learning_rate ({config.quant.peak:g})"
    )
