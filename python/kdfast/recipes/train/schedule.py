"""The learning rate: linear warm-up, then a cosine down to a fraction of the peak."""

from __future__ import annotations

import math

from kdfast.config.optimizer import OptimizerConfig


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
