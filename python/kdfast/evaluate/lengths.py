"""How long answers are, compared with the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdfast.scoring.bootstrap import interval_of_quantile


def length_summary(tokens: Sequence[int], reference_tokens: Sequence[int | None]) -> dict[str, Any]:
    """Compares the length of each answer with that of its right answer.

    An answer that was cut counts with the tokens that it has. Its true ratio is higher.

    Args:
        tokens: the length of each answer, without the token that ended it.
        reference_tokens: the length of each right answer; None or 0 = this prompt has no ratio.

    Returns:
        `tokens`: over all answers, and `ratio`: over those with a right answer. Each has `count` and, if that is not 0,
        `p50` and `p95` as `{"value", "low", "high"}`: low and high are the 95 % interval of a bootstrap over prompts. A
        value is always one that was measured (numpy's `inverted_cdf`).

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
