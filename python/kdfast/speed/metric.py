"""One metric over many samples, infinite ones included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True)
class Metric:
    """Samples of one quantity.

    A sample may be inf (what was waited for never came) and stays in every statistic: percentiles are values that
    were measured (numpy's `inverted_cdf`), because interpolation would make NaN of inf.

    Attributes:
        unit: such as `ms`.
        samples: at least one, none NaN.

    Raises:
        ValueError: there is no sample, or one is NaN.

    Examples:
        >>> metric = Metric("tokens", [30.0, 20.0, float("inf"), 40.0])
        >>> metric.percentile(50), metric.percentile(95), metric.infinite
        (30.0, inf, 1)
    """

    unit: str
    samples: Sequence[float]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("samples must hold at least one value, got none")
        if any(math.isnan(sample) for sample in self.samples):
            raise ValueError(f"samples must not be NaN, got {list(self.samples)}")

    @property
    def count(self) -> int:
        """How many samples there are, infinite ones included."""
        return len(self.samples)

    @property
    def infinite(self) -> int:
        """How many of them are infinite."""
        return sum(math.isinf(sample) for sample in self.samples)

    def percentile(self, level: float) -> float:
        """The smallest sample that a share of `level` percent does not exceed."""
        return float(np.percentile(np.asarray(self.samples, dtype=np.float64), level, method="inverted_cdf"))

    def to_json(self, *, samples: bool = True) -> dict[str, Any]:
        """A metric object as in AIPerf's `profile_export_aiperf.json`.

        Args:
            samples: whether to keep them.

        Returns:
            unit, avg, p1 to p99, min, max, std (of the samples, not an estimate), count, infinite, samples; None for
            what is infinite, and for the std beside an infinite sample.
        """
        values = np.asarray(self.samples, dtype=np.float64)
        statistics = {
            "avg": float(values.mean()),
            **{f"p{level}": self.percentile(level) for level in PERCENTILES},
            "min": float(values.min()),
            "max": float(values.max()),
            "std": math.inf if self.infinite else float(values.std()),
        }
        document = {"unit": self.unit, **{name: finite(value) for name, value in statistics.items()}}
        document |= {"count": self.count, "infinite": self.infinite}
        return document | ({"samples": [finite(float(value)) for value in values]} if samples else {})


def finite(value: float) -> float | None:
    """The number, or None for an infinite one: JSON has none.

    Example:
        >>> finite(1.5), finite(float("inf"))
        (1.5, None)
    """
    return value if math.isfinite(value) else None
