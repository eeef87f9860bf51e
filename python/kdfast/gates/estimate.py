"""How much slower the candidate is: the median of the pairs' ratios and the ratio of the p95s, with bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdfast.gates.bootstrap import CONFIDENCE, Floats, drawn_counts, drawn_quantiles, quantile
from kdfast.gates.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A ratio candidate / blessed (above 1 = slower) with its two one-sided 95 % bounds.

    Example:
        >>> slow = Estimate(ratio=1.10, lower=1.06, upper=1.14)
        >>> slow.beyond(1.05), slow.tight(1.05), str(slow)
        (True, True, '1.100 (1.060 to 1.140)')
    """

    ratio: float
    lower: float
    upper: float

    def beyond(self, limit_ratio: float, floor: float = 1.0) -> bool:
        """Whether the ratio is above the limit and its lower bound above `floor`."""
        return self.ratio > limit_ratio and self.lower > floor

    def tight(self, limit_ratio: float) -> bool:
        """Whether each bound is within a factor of `limit_ratio` of the ratio.

        Then a slowdown of twice the limit cannot be mistaken for no change.
        """
        return self.ratio <= self.lower * limit_ratio and self.upper <= self.ratio * limit_ratio

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ({self.lower:.3f} to {self.upper:.3f})"


def estimate_slowdown(pairs: Pairs, *, seed: int = 0) -> tuple[Estimate, Estimate]:
    """Estimates two ratios from the same draws of the prompts.

    Args:
        pairs: valid pairs (`Pairs.problem` is None), in any order.
        seed: the seed of the draws.

    Returns:
        The median of candidate / blessed over the pairs, and p95(candidate) / p95(blessed).

    Example:
        >>> times = np.linspace(90.0, 110.0, 20)[:, None]
        >>> median, p95 = estimate_slowdown(Pairs.from_rounds(times * 1.1, times))
        >>> str(median), str(p95)
        ('1.100 (1.100 to 1.100)', '1.100 (1.100 to 1.100)')
    """
    pairs = pairs.ordered()
    counts = drawn_counts(pairs.prompts, seed=seed)
    ratios = pairs.log_ratios()
    candidate, blessed = np.log(pairs.candidate), np.log(pairs.blessed)
    tails = [drawn_quantiles(side, pairs.prompt, counts, 0.95) for side in (candidate, blessed)]
    return (
        _estimate(quantile(ratios, 0.5), drawn_quantiles(ratios, pairs.prompt, counts, 0.5)),
        _estimate(quantile(candidate, 0.95) - quantile(blessed, 0.95), tails[0] - tails[1]),
    )


def _estimate(value: float, drawn: Floats) -> Estimate:
    lower, upper = np.quantile(drawn, (1 - CONFIDENCE, CONFIDENCE))
    # With few prompts a bound can fall on the wrong side of the estimate. Then use the estimate as the bound.
    return Estimate(
        ratio=math.exp(value),
        lower=math.exp(min(float(lower), value)),
        upper=math.exp(max(float(upper), value)),
    )
