"""What is minimised: the enabled loss terms, their weights at a step, their counts before the forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from kdfast.config.kd import KDConfig
from kdfast.losses import (
    CombinedLoss,
    LossSettings,
    combined_kd_loss,
    early_tool_ramp,
    plan_batch,
    term_weights,
)

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class StepWeights:
    """What is fixed for a whole optimiser step.

    Attributes:
        weights: of each enabled term.
        counts: of each, over all micro-batches and ranks.
        hinge_open: of the length loss; None = row by row.
    """

    weights: Mapping[str, float]
    counts: Mapping[str, float]
    hinge_open: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a run.

    Attributes:
        settings: of the losses.
        num_steps: of the run: weights reach their final values at the last one.
        early_tool_warmup_steps: over which the early-tool weights grow.
    """

    settings: LossSettings = field(default_factory=lambda: LossSettings(kd=KDConfig()))
    num_steps: int = 1
    early_tool_warmup_steps: int = 0

    @property
    def final_weights(self) -> dict[str, float]:
        """The weights at the end of the run: those that validation adds up by, so that its losses compare."""
        return term_weights(self.settings.kd)

    def weights(self, step: int) -> dict[str, float]:
        """The weight of each enabled term at a step (0-based).

        Examples:
            >>> kd = KDConfig(kl_weight=0.5, kl_final_weight=0.1, early_tool_ce_weight=0.01)
            >>> objective = Objective(settings=LossSettings(kd=kd), num_steps=5, early_tool_warmup_steps=4)
            >>> [round(objective.weights(step)["kl"], 2) for step in range(5)]
            [0.5, 0.4, 0.3, 0.2, 0.1]
            >>> [objective.weights(step)["early_tool_ce"] for step in (0, 2, 4)]
            [0.0, 0.005, 0.01]
        """
        progress = min(1.0, step / max(1, self.num_steps - 1))
        ramp = early_tool_ramp(step, self.early_tool_warmup_steps)
        return term_weights(self.settings.kd, progress=progress, ramp=ramp)

    def counts(self, batch: Batch) -> dict[str, float]:
        """What each enabled term counts in a batch, from the masks alone."""
        return dict(plan_batch(batch, self.settings).counts)

    def hinge_open(self, average: float | None) -> bool | None:
        """Whether the length loss's hinge is open, given the average of earlier steps (None = none yet).

        Examples:
            >>> objective = Objective()
            >>> objective.hinge_open(None), objective.hinge_open(0.2), objective.hinge_open(-0.1)
            (False, True, False)
        """
        if self.settings.kd.length_aggregate == "row":
            return None
        return average is not None and average > 0

    def loss(
        self, hidden: Tensor, head: Tensor, batch: Batch, step: StepWeights, *, want_best: bool = False
    ) -> CombinedLoss:
        """All terms of a micro-batch; see `combined_kd_loss`."""
        return combined_kd_loss(
            hidden,
            head,
            batch,
            replace(self.settings, hinge_open=step.hinge_open),
            weights=step.weights,
            counts=step.counts,
            want_best=want_best,
        )
