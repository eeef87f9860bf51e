"""One metric over many samples, which may be infinite."""

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

    A sample may be inf (the event never came); it is part of every statistic. A percentile is always one of the
    samples (numpy's `inverted_cdf`): interpolation between two infinite samples would give NaN.

    Attributes:
        unit: the unit, such as `ms`.
        samples: the samples, at least one; none is NaN.
        cut: how many of the infinite samples are of answers that the token limit cut: the event may have followed.
            None = not known.

    Raises:
        ValueError: there is no sample, one is NaN, or `cut` is not in [0, the number of infinite samples].

    Examples:
        >>> metric = Metric("tokens", [30.0, 20.0, float("inf"), 40.0])
        >>> metric.percentile(50), metric.percentile(95), metric.infinite
        (30.0, inf, 1)
    """

    unit: str
    samples: Sequence[float]
    cut: int | None = None

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("samples must hold at least one value, got none")
        if any(math.isnan(sample) for sample in self.samples):
            raise ValueError(f"samples must not be NaN, got {list(self.samples)}")
        if self.cut is not None and not 0 <= self.cut <= self.infinite:
            raise ValueError(f"cut must be from 0 to the infinite samples ({self.infinite}), got {self.cut}")

    @property
    def count(self) -> int:
        """How many samples there are, infinite ones included."""
        return len(self.samples)

    @property
    def infinite(self) -> int:
        """How many samples are infinite."""
        return sum(math.isinf(sample) for sample in self.samples)

    @property
    def never(self) -> int:
        """How many samples are infinite for certain: no token limit cut their answer. Unless `cut` is known, all."""
        return self.infinite - (self.cut or 0)

    @property
    def infinite_word(self) -> str:
        """What an infinite number means: `never`, `cut` or, if some were cut, `no call`.

        Example:
            >>> Metric("tokens", [30.0, float("inf")], cut=1).infinite_word
            'cut'
        """
        return "never" if not self.cut else "no call" if self.never else "cut"

    def percentile(self, level: float) -> float:
        """The smallest sample that is >= `level` percent of the samples."""
        return float(np.percentile(np.asarray(self.samples, dtype=np.float64), level, method="inverted_cdf"))

    def to_json(self, *, samples: bool = True) -> dict[str, Any]:
        """A metric object as in AIPerf's `profile_export_aiperf.json`.

        Args:
            samples: whether to write the raw samples.

        Returns:
            unit, avg, p1 to p99, min, max, std (of the samples themselves, not an estimate for more), count, infinite,
            cut if it is known, and samples. An infinite number is None; so is the std if a sample is infinite.
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
        document |= {} if self.cut is None else {"cut": self.cut}
        return document | ({"samples": [finite(float(value)) for value in values]} if samples else {})


def finite(value: float) -> float | None:
    """The number, or None if it is infinite: JSON has no infinity.

    Example:
        >>> finite(1.5), finite(float("inf"))
        (1.5, None)
    """
    return value if math.isfinite(value) else None
