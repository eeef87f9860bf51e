"""Percentile bootstrap over prompts: how much a result could differ on other prompts of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""How often the prompts are drawn again for each interval."""
CONFIDENCE = 0.95
"""The confidence of each interval, two-sided."""

Floats = NDArray[np.float64]
Interval = tuple[float, float]

_CELLS = 1 << 22  # how many draws x prompts are in memory at once


def drawn_counts(prompts: int, *, resamples: int, seed: int | np.random.Generator = 0) -> NDArray[np.int32]:
    """How often each prompt was drawn in each resample.

    Args:
        prompts: the number of prompts.
        resamples: how often the prompts are drawn again.
        seed: the same seed gives the same draws; or a generator to draw from.

    Returns:
        The counts, [resamples, prompts] int32; each row adds up to `prompts`.

    Example:
        >>> drawn_counts(5, resamples=2).sum(axis=1)
        array([5, 5]...)
    """
    drawn = np.random.default_rng(seed).integers(prompts, size=(resamples, prompts))
    drawn += np.arange(resamples)[:, None] * prompts  # each resample gets its own bins in the one bincount
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.int32)


def interval_of_sums(
    table: NDArray[Any],
    statistic: Callable[[Floats], Floats],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The 95 % interval of a number that is computed from sums over prompts, such as F1.

    Args:
        table: [prompts, columns] the numbers of each prompt; at least one prompt.
        statistic: turns sums [draws, columns] into values [draws]; NaN = undefined: this draw is left out.
        seed: the same seed gives the same interval.
        resamples: how often the prompts are drawn again.

    Raises:
        ValueError: there is no prompt, or the statistic is undefined in every draw.

    Example:
        >>> low, high = interval_of_sums(np.array([[1.0], [0.0], [1.0], [1.0]]), lambda sums: sums[:, 0] / 4)
        >>> low < 0.75 < high
        True
    """
    if len(table) == 0:
        raise ValueError("table must have at least one prompt, got none")
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // len(table))
    drawn = np.concatenate(
        [
            statistic(drawn_counts(len(table), resamples=min(block, resamples - done), seed=rng) @ table)
            for done in range(0, resamples, block)
        ]
    )
    return percentiles(drawn)


def interval_of_share(count: int, total: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The 95 % interval of a share of prompts.

    If `total` prompts are drawn with replacement, the number of them that count is binomial. So that number is drawn,
    not the prompts.

    Args:
        count: how many prompts count.
        total: how many prompts there are, at least one.
        seed: the same seed gives the same interval.
        resamples: how often the number is drawn.

    Raises:
        ValueError: there is no prompt, or `count` is not in [0, total].

    Example:
        >>> interval_of_share(15, 20)
        (0.55, 0.95)
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"count must be in [0, total], total at least 1, got {count} of {total}")
    return percentiles(np.random.default_rng(seed).binomial(total, count / total, resamples) / total)


def interval_of_quantile(
    values: NDArray[Any], level: float, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The 95 % interval of a quantile, such as the median, of one number per prompt.

    Args:
        values: [prompts] the numbers, at least one; they may be infinite.
        level: the quantile's level in [0, 1]; a quantile is always one of the values (numpy's `inverted_cdf`).
        seed: the same seed gives the same interval.
        resamples: how often the prompts are drawn again.

    Raises:
        ValueError: there is no prompt.

    Example:
        >>> interval_of_quantile(np.arange(1.0, 21.0), 0.5)
        (6.0, 14.0)
    """
    if len(values) == 0:
        raise ValueError("values must have at least one prompt, got none")
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // len(values))
    drawn = [
        np.quantile(
            values[rng.integers(len(values), size=(min(block, resamples - done), len(values)))],
            level,
            axis=1,
            method="inverted_cdf",
        )
        for done in range(0, resamples, block)
    ]
    return percentiles(np.concatenate(drawn))


def percentiles(drawn: NDArray[Any]) -> Interval:
    """The middle 95 % of the draws without NaN; both ends are values that were drawn.

    Raises:
        ValueError: every draw is NaN.
    """
    formed = drawn[~np.isnan(drawn)]
    if len(formed) == 0:
        raise ValueError("statistic must be formed in at least one draw, got NaN in all")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(formed, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
