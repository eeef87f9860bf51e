"""Bootstrap over prompts: a prompt is drawn with all that was measured on it, in both arms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdfast.scoring import bootstrap

RESAMPLES = 1000
"""Draws of the prompts behind every bound."""
CONFIDENCE = 0.95
"""Of every one-sided bound."""

_ROUNDING = 1e-9

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]


def drawn_counts(prompts: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int32]:
    """How often each prompt was drawn in each resample, see `kdfast.scoring.bootstrap.drawn_counts`."""
    return bootstrap.drawn_counts(prompts, resamples=resamples, seed=seed)


def quantile(values: Floats, level: float) -> float:
    """The value that a share `level` of the values does not exceed; at 0.5 the usual median.

    No interpolation elsewhere (numpy's `inverted_cdf`), so that the p95 is a value that was measured.

    Example:
        >>> quantile(np.array([4.0, 1.0, 2.0, 3.0]), 0.5), quantile(np.arange(1.0, 21.0), 0.95)
        (2.5, 19.0)
    """
    every = np.ones((1, 1), dtype=np.int32)
    return float(drawn_quantiles(values, np.zeros(len(values), dtype=np.intp), every, level)[0])


def drawn_quantiles(values: Floats, prompt: Ints, counts: NDArray[np.int32], level: float) -> Floats:
    """The quantile of each resample, by weights instead of copies.

    Args:
        values: [N] measurements.
        prompt: [N] the prompt of each, from 0.
        counts: [resamples, prompts] of `drawn_counts`.
        level: as in `quantile`.

    Returns:
        [resamples].
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    reached = np.cumsum(counts[:, prompt[order]], axis=1, dtype=np.int32)
    wanted = level * reached[:, -1:]
    low: Floats = ordered[(reached < wanted - _ROUNDING).sum(axis=1)]
    if level != 0.5:
        return low
    high: Floats = ordered[np.minimum((reached < wanted + _ROUNDING).sum(axis=1), len(ordered) - 1)]
    return np.asarray((low + high) / 2)
