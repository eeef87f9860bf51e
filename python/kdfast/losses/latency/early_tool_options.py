"""Weights and limits of the early tool-call loss, and the ramp of its weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdfast.losses.latency.early_tool_plan import MAX_TOKENS, PARTS


@dataclass(frozen=True, kw_only=True)
class EarlyToolOptions:
    """Weights and limits. A part of weight 0 is not computed.

    Attributes:
        ce_weight: cross-entropy on the first tokens of the teacher's call.
        prior_weight: -log Q at t0, where the teacher's call is not known; Q = probability of an opening id.
        preamble_weight: text before the call.
        negative_weight: -log(1 - Q) at the start of answers that must not call.
        max_tokens: N, most target tokens a row.
        max_preamble_tokens: the expected number of tokens before the call that is free.
        preamble_slope: multiplies what is above it.
        ramp: multiplies `EarlyToolTerms.total`, see `early_tool_ramp`.

    Raises:
        ValueError: a value out of range.
    """

    ce_weight: float = 0.01
    prior_weight: float = 0.001
    preamble_weight: float = 0.0
    negative_weight: float = 0.0
    max_tokens: int = MAX_TOKENS
    max_preamble_tokens: float = 0.0
    preamble_slope: float = 1.0
    ramp: float = 1.0

    def __post_init__(self) -> None:
        for name in (*self._weight_names(), "max_preamble_tokens", "preamble_slope", "ramp"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0: {value}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1: {self.max_tokens}")

    @staticmethod
    def _weight_names() -> list[str]:
        return [part.removeprefix("early_tool_") + "_weight" for part in PARTS]

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each part that is switched on, by the part's name.

        Example:
            >>> EarlyToolOptions().weights
            {'early_tool_ce': 0.01, 'early_tool_prior': 0.001}
        """
        values = [getattr(self, name) for name in self._weight_names()]
        return {part: value for part, value in zip(PARTS, values, strict=True) if value > 0}


DEFAULT_OPTIONS = EarlyToolOptions()


def early_tool_ramp(step: int, warmup_steps: int) -> float:
    """How much of the loss's weight counts at an optimiser step: 0 at step 0, 1 from `warmup_steps` on, linear between.

    Args:
        step: optimiser steps taken so far.
        warmup_steps: 0 = no warm-up: always 1.

    Raises:
        ValueError: a negative argument.

    Example:
        >>> [early_tool_ramp(step, 4) for step in (0, 1, 4, 9)], early_tool_ramp(0, 0)
        ([0.0, 0.25, 1.0, 1.0], 1.0)
    """
    if step < 0 or warmup_steps < 0:
        raise ValueError(f"step and warmup_steps must not be negative: {step}, {warmup_steps}")
    return min(1.0, step / warmup_steps) if warmup_steps else 1.0
