"""What is minimised: the enabled loss terms, their weights at a step, what they remember and learn themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdfast.config.data import DataConfig
from kdfast.config.kd import KDConfig
from kdfast.data import KDDataset
from kdfast.losses import (
    ENTRIES,
    BatchPlan,
    Layers,
    LossSettings,
    PendingLoss,
    State,
    StepWeights,
    StudentOutput,
    early_tool_ramp,
    plan_batch,
    planned_loss,
    term_weights,
)
from kdfast.teacher.local.scores import call_opening_ids

Batch = Mapping[str, Tensor]

# checkpoints of versions without `terms` had this key for the one state that there was
_OLD_AVERAGE = "length_average"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a run.

    Attributes:
        settings: settings of the losses.
        num_steps: steps of the run: weights reach their final values at the last one.
        early_tool_warmup_steps: steps over which the early-tool weights grow.
    """

    settings: LossSettings = field(default_factory=lambda: LossSettings(kd=KDConfig()))
    num_steps: int = 1
    early_tool_warmup_steps: int = 0

    @classmethod
    def of(
        cls,
        dataset: KDDataset,
        kd: KDConfig | None = None,
        *,
        num_steps: int = 1,
        early_tool_warmup_steps: int = 0,
        prefix_tokens: int = DataConfig.prefix_tokens,
        live_teacher: bool = False,
    ) -> Objective:
        """The loss of a config for the rows of a dataset.

        Args:
            dataset: the training rows; its template and teacher store say what ends a turn, what opens a call, and at
                which temperature the teacher's log-probabilities were taken.
            kd: weights and forms of the terms; None = the defaults.
            num_steps: steps of the run: weights reach their final values at the last one.
            early_tool_warmup_steps: steps over which the early-tool weights grow from 0.
            prefix_tokens: tokens of a due call that the early-tool loss learns (`data.prefix_tokens`).
            live_teacher: the divergence is from a teacher beside the student (`teacher.live`), which `StudentLoss` is
                given, and not from the teacher store.
        """
        teacher = dataset.teacher
        settings = LossSettings(
            kd=kd or KDConfig(),
            eos_ids=tuple(dataset.turn_end_ids[-1:]),
            opening_ids=call_opening_ids(dataset.pieces(), dataset.call_openings),
            prefix_tokens=prefix_tokens,
            logprob_temperature=teacher.logprob_temperature if teacher is not None else 1.0,
            live_teacher=live_teacher,
        )
        return cls(settings=settings, num_steps=num_steps, early_tool_warmup_steps=early_tool_warmup_steps)

    @property
    def final_weights(self) -> dict[str, float]:
        """The weights at the end of the run: those that validation adds up by, so that its losses compare.

        Without `self_kl`, which is on in a part of the run only.
        """
        return term_weights(self.settings.kd)

    def with_self_teaching(self, weight: float, task_factor: float) -> Objective:
        """The same with another weight of `self_kl`, the divergence from an earlier state of the student.

        Args:
            weight: of `self_kl`; 0 = off.
            task_factor: while it is on, what the weights of all other terms are multiplied by; 0 = it replaces them.

        Examples:
            >>> objective = Objective(settings=LossSettings(kd=KDConfig(kl_weight=0)))
            >>> objective.with_self_teaching(1.0, 0.5).weights(0)
            {'ce_teacher': 0.15, 'ce_truth': 0.1, 'self_kl': 1.0}
            >>> objective.with_self_teaching(1.0, 0.5).final_weights
            {'ce_teacher': 0.3, 'ce_truth': 0.2}
        """
        settings = replace(self.settings, self_kl_weight=weight, task_factor=task_factor)
        return replace(self, settings=settings)

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
        settings = self.settings
        weights = term_weights(settings.kd, progress=progress, ramp=ramp)
        if not settings.self_kl_weight:
            return weights
        others = {name: settings.task_factor * weight for name, weight in weights.items()}
        return {**others, "self_kl": settings.self_kl_weight}

    def plan(
        self, batch: Batch, *, vocab_size: int, width: int, dtype: torch.dtype = torch.float32
    ) -> BatchPlan:
        """The plan of a micro-batch, made on the CPU before the first forward; see `plan_batch`."""
        return plan_batch(batch, self.settings, vocab_size=vocab_size, width=width, dtype=dtype)

    def loss(
        self,
        output: StudentOutput,
        plan: BatchPlan,
        step: StepWeights,
        modules: Mapping[str, nn.Module] | None = None,
        *,
        want_best: bool = False,
    ) -> PendingLoss:
        """All terms of a micro-batch; see `planned_loss`."""
        return planned_loss(output, plan, step, self.settings, modules=modules, want_best=want_best)

    def states(self, saved: Mapping[str, Any] | None = None) -> dict[str, State]:
        """What the enabled terms remember at the start of training.

        Args:
            saved: the state of a checkpoint; None = training starts.

        Examples:
            >>> objective = Objective(settings=LossSettings(kd=KDConfig(length_weight=0.1)))
            >>> objective.states()["length"], objective.states({"length_average": 0.5})["length"]
            ({'average': None}, {'average': 0.5})
        """
        settings = self.settings
        states = {
            name: ENTRIES[name].next_state(None, {}, settings)
            for name in ENTRIES
            if ENTRIES[name].enabled(settings)
        }
        if saved is None:
            return states
        if _OLD_AVERAGE in saved and "length" in states:
            states["length"] = {"average": saved[_OLD_AVERAGE]}
        return states | dict(saved.get("terms", {}))

    def next_states(
        self, states: Mapping[str, State], observed: Mapping[str, Mapping[str, float]]
    ) -> dict[str, State]:
        """What the terms remember after a step.

        Args:
            states: what they remembered before it.
            observed: entry -> what its micro-batches observed, summed over all ranks.
        """
        return {
            name: ENTRIES[name].next_state(state, observed.get(name, {}), self.settings)
            for name, state in states.items()
        }

    def modules(self, widths: tuple[int, int]) -> nn.ModuleDict:
        """Parameters that terms learn beside the student, such as a projector; usually empty.

        Args:
            widths: (student's, teacher's) hidden size.
        """
        found = {name: entry.module(self.settings.kd, widths) for name, entry in ENTRIES.items()}
        return nn.ModuleDict({name: module for name, module in found.items() if module is not None})

    @property
    def layers(self) -> Layers:
        """The hidden states that terms compare."""
        found = [entry.layers(self.settings.kd) for entry in ENTRIES.values()]
        return Layers(
            student=tuple(layer for layers in found for layer in layers.student),
            teacher=tuple(layer for layers in found for layer in layers.teacher),
        )
