"""Bootstrap over prompts: a drawn prompt brings all its measurements, of both models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdfast.scoring import bootstrap

RESAMPLES = 1000
"""How often the prompts are drawn again for each bound."""
CONFIDENCE = 0.95
"""The confidence of each one-sided bound."""

_ROUNDING = 1e-9

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]


def drawn_counts(prompts: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int32]:
    """How often each prompt was drawn in each resample, [resamples, prompts]; see `kdfast.scoring.bootstrap`."""
    return bootstrap.drawn_counts(prompts, resamples=resamples, seed=seed)


def quantile(values: Floats, level: float) -> float:
    """The smallest value that is >= a share `level` of the values; at 0.5 the usual median.

    Other levels are not interpolated (numpy's `inverted_cdf`): the p95 is a value that was measured.

    Example:
        >>> quantile(np.array([4.0, 1.0, 2.0, 3.0]), 0.5), quantile(np.arange(1.0, 21.0), 0.95)
        (2.5, 19.0)
    """
    every = np.ones((1, 1), dtype=np.int32)
    return float(drawn_quantiles(values, np.zeros(len(values), dtype=np.intp), every, level)[0])


def drawn_quantiles(values: Floats, prompt: Ints, counts: NDArray[np.int32], level: float) -> Floats:
    """The quantile of each resample. A value counts as often as its prompt was drawn; nothing is copied.

    Args:
        values: [N] measurements.
        prompt: [N] the number of each measurement's prompt, from 0.
        counts: [resamples, prompts], the result of `drawn_counts`.
        level: the quantile's level, as in `quantile`.

    Returns:
        One quantile per resample, [resamples].
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    reached = np.cumsum(counts[:, prompt[order]], axis=1, dtype=np.int32)  # [resamples, N]
    wanted = level * reached[:, -1:]  # [resamples, 1]
    low: Floats = ordered[(reached < wanted - _ROUNDING).sum(axis=1)]  # [resamples]
    if level != 0.5:
        return low
    high: Floats = ordered[np.minimum((reached < wanted + _ROUNDING).sum(axis=1), len(ordered) - 1)]
    return np.asarray((low + high) / 2)
