"""How long answers are against the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdfast.scoring.bootstrap import interval_of_quantile


def length_summary(tokens: Sequence[int], reference_tokens: Sequence[int | None]) -> dict[str, Any]:
    """Tokens of each answer against those of its reference.

    An answer that was cut counts with the tokens that it has: the ratio is a lower bound there.

    Args:
        tokens: of each answer, without the one that ended it.
        reference_tokens: of each right answer; None or 0 = that prompt has no ratio.

    Returns:
        `tokens` of all answers and `ratio` of those with a reference, each with `count` and, where that is not 0,
        `p50` and `p95`: `{"value", "low", "high"}`, the 95 % interval of a bootstrap over prompts. Values are ones
        that were measured (`inverted_cdf`).

    Example:
        >>> length_summary([30, 60, 10], [30, 40, None])["ratio"]["p50"]
        {'value': 1.0, 'low': 1.0, 'high': 1.5}
    """
    ratios = [length / right for length, right in zip(tokens, reference_tokens, strict=True) if right]
    return {"tokens": _quantiles(tokens), "ratio": _quantiles(ratios)}


def _quantiles(values: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"count": len(values)}
    for name, level in (("p50", 0.5), ("p95", 0.95)) if values else ():
        array = np.array(values, dtype=np.float64)
        low, high = interval_of_quantile(array, level)
        value = float(np.quantile(array, level, method="inverted_cdf"))
        found[name] = {"value": value, "low": low, "high": high}
    return found
