"""What the terms of the training loss need to know beside the batch."""

from __future__ import annotations

from dataclasses import dataclass

from kdfast.config.kd import KDConfig
from kdfast.losses.latency.early_tool_plan import MAX_TOKENS


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Settings of a run's loss.

    Attributes:
        kd: the config's section `kd`.
        eos_ids: ids that end an answer.
        opening_ids: ids that can open a tool call.
        prefix_tokens: most tokens of a call that the early-tool cross-entropy counts.
        logprob_temperature: temperature of the stored teacher log-probabilities.
        live_teacher: the divergence of `kl` is from a teacher beside the student, not from the stored numbers.
        self_kl_weight: the weight of `self_kl`, the divergence from an earlier state of the student itself; 0 = off.
        task_factor: while `self_kl` is on, what the weights of all other terms are multiplied by.
    """

    kd: KDConfig
    eos_ids: tuple[int, ...] = ()
    opening_ids: tuple[int, ...] = ()
    prefix_tokens: int = MAX_TOKENS
    logprob_temperature: float = 1.0
    live_teacher: bool = False
    self_kl_weight: float = 0.0
    task_factor: float = 1.0
