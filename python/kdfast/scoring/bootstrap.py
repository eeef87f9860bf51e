"""Percentile bootstrap over prompts: how far a result could lie from itself on other prompts of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Draws of the prompts behind every interval."""
CONFIDENCE = 0.95
"""Of every interval, two-sided."""

Floats = NDArray[np.float64]
Interval = tuple[float, float]

_CELLS = 1 << 22  # draws x prompts that are in memory at once


def drawn_counts(prompts: int, *, resamples: int, seed: int | np.random.Generator = 0) -> NDArray[np.int32]:
    """How often each prompt was drawn in each resample.

    Args:
        prompts: how many there are.
        resamples: how many draws.
        seed: the same seed gives the same draws; or the generator to draw from.

    Returns:
        [resamples, prompts]; each row adds up to `prompts`.

    Example:
        >>> drawn_counts(5, resamples=2).sum(axis=1)
        array([5, 5]...)
    """
    drawn = np.random.default_rng(seed).integers(prompts, size=(resamples, prompts))
    drawn += np.arange(resamples)[:, None] * prompts
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.int32)


def interval_of_sums(
    table: NDArray[Any],
    statistic: Callable[[Floats], Floats],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The 95 % interval of what is formed from sums over prompts, such as F1.

    Args:
        table: [prompts, columns] the numbers of each prompt, at least one prompt.
        statistic: [draws, columns] sums -> [draws]; NaN = cannot be formed: that draw is left out.
        seed: the same seed gives the same interval.
        resamples: how many draws.

    Raises:
        ValueError: there is no prompt, or the statistic can be formed in no draw.

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

    Of `total` prompts drawn with replacement, those that count are binomial: no prompt has to be drawn.

    Args:
        count: prompts that count.
        total: prompts, at least one.
        seed: the same seed gives the same interval.
        resamples: how many draws.

    Raises:
        ValueError: there is no prompt, or more count than there are.

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
    """The 95 % interval of a quantile of one number a prompt, such as the median.

    Args:
        values: [prompts], at least one; infinities are allowed.
        level: in [0, 1]; quantiles are values that were measured (numpy's `inverted_cdf`).
        seed: the same seed gives the same interval.
        resamples: how many draws.

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
    """The middle 95 % of the draws, NaN left out; both ends are values that were drawn.

    Raises:
        ValueError: all are NaN.
    """
    formed = drawn[~np.isnan(drawn)]
    if len(formed) == 0:
        raise ValueError("statistic must be formed in at least one draw, got NaN in all")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(formed, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
