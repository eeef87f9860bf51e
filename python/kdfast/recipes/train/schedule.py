"""The learning rate: linear warm-up, then a cosine down to a fraction of the peak; under quantisation another one."""

from __future__ import annotations

import math

from kdfast.config.optimizer import OptimizerConfig
from kdfast.config.quant import QuantConfig


def learning_rate(step: int, schedule_steps: int, optimizer: OptimizerConfig) -> float:
    """The learning rate at a step (0-based); after `schedule_steps` steps it stays at its lowest.

    Examples:
        >>> config = OptimizerConfig(learning_rate=1.0, warmup_steps=2, min_lr_fraction=0.1)
        >>> [round(learning_rate(step, 6, config), 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.775, 0.325, 0.1]
        >>> learning_rate(100, 6, config)
        0.1
    """
    peak, warmup = optimizer.learning_rate, optimizer.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, schedule_steps - 1 - warmup)
    floor = peak * optimizer.min_lr_fraction
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def learning_rate_under_qat(step: int, first_step: int, num_steps: int, quant: QuantConfig) -> float:
    """The learning rate at a step (0-based) under quantisation: a short warm-up, then a cosine down to 0 at the end.

    Args:
        step: the step.
        first_step: the first one under quantisation.
        num_steps: steps of the run.
        quant: the config's section: its peak is absolute.

    Examples:
        >>> config = QuantConfig(learning_rate=1.0, warmup_steps=2)
        >>> [round(learning_rate_under_qat(step, 10, 16, config), 3) for step in range(10, 16)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    warmup, done = min(quant.warmup_steps, num_steps - first_step), step - first_step
    if done < warmup:
        return quant.peak * (done + 1) / warmup
    share = (done - warmup) / max(1, num_steps - first_step - warmup)
    return quant.peak * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
