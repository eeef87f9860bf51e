"""Computes metrics from samples. A metric that could not be measured is absent, with a reason; it is never 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.speed.metric import Metric
from kdfast.speed.sample import SpeedSample

_NO_PROMPT = "no prompt was measured"
_NO_SECOND_TOKEN = "no answer has a second token"  # noqa: S105 - no password
_NO_CALL = "no prompt needs a call"
_NO_TRUTH = "no prompt that needs a call has a ground truth"

METRICS: dict[str, tuple[str, str]] = {
    "ttft_ms": ("ms", _NO_PROMPT),
    "ttft_tokenise_ms": ("ms", _NO_PROMPT),
    "ttft_prefill_ms": ("ms", _NO_PROMPT),
    "ttft_first_token_ms": ("ms", _NO_PROMPT),
    "itl_ms": ("ms", _NO_SECOND_TOKEN),
    "tpot_ms": ("ms", _NO_SECOND_TOKEN),
    "tps": ("tokens/s", _NO_SECOND_TOKEN),
    "ttfa_tokens": ("tokens", _NO_CALL),
    "ttfa_name_tokens": ("tokens", _NO_CALL),
    "ttfa_overhead_tokens": ("tokens", _NO_TRUTH),
    "ttfa_ms": ("ms", _NO_CALL),
    "prompt_tokens": ("tokens", _NO_PROMPT),
    "output_tokens": ("tokens", _NO_PROMPT),
}
"""The metrics of a report: the unit, and the reason to give if no sample has it."""
SOMETIMES = {"thinking_tokens": "tokens"}
"""Metrics that only some models have, and their units. A report without one gives no reason."""


Sample = SpeedSample | Mapping[str, float | Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class SpeedMetrics:
    """Metrics over many prompts.

    Attributes:
        metrics: the metrics that were measured, by name.
        absent: why the others were not measured, by name.
    """

    metrics: Mapping[str, Metric]
    absent: Mapping[str, str]

    def __getitem__(self, name: str) -> Metric:
        return self.metrics[name]

    @classmethod
    def failed(cls, reason: str) -> SpeedMetrics:
        """No metric at all: each is absent for this reason."""
        return cls(metrics={}, absent=dict.fromkeys(METRICS, reason))

    def to_json(self, *, samples: bool = True) -> dict[str, Any]:
        """The sections `metrics` and `absent` of a report."""
        metrics = {name: metric.to_json(samples=samples) for name, metric in self.metrics.items()}
        return {"metrics": metrics, "absent": dict(self.absent)}


def aggregate_speed_metrics(samples: Iterable[Sample]) -> SpeedMetrics:
    """Computes statistics over the samples of many prompts.

    Args:
        samples: the result of `measure_proxy`; or mappings from metric names to a number or a list of numbers
            (`itl_ms`). A metric covers the samples that have it.

    Returns:
        The metrics that at least one sample has, and why the others are absent. Of the first actions that did not come,
        those of answers that the token limit cut are counted (`Metric.cut`), unless a sample is a mapping.

    Raises:
        ValueError: a name is not a metric, or a number is NaN.

    Examples:
        >>> speed = aggregate_speed_metrics([{"ttft_ms": 40.0, "ttfa_tokens": float("inf")}, {"ttft_ms": 60.0}])
        >>> speed["ttft_ms"].percentile(50), speed["ttfa_tokens"].infinite, speed.absent["tps"]
        (40.0, 1, 'no answer has a second token')
    """
    units = {name: unit for name, (unit, _) in METRICS.items()} | SOMETIMES
    samples = list(samples)
    gathered: dict[str, list[float]] = {name: [] for name in units}
    for sample in samples:
        for name, value in (sample.values() if isinstance(sample, SpeedSample) else sample).items():
            if name not in units:
                raise ValueError(f"samples: metric must be one of {', '.join(units)}, got {name!r}")
            gathered[name] += [float(one) for one in value] if isinstance(value, Sequence) else [float(value)]
    return SpeedMetrics(
        metrics={
            name: Metric(units[name], values, _cut(name, samples))
            for name, values in gathered.items()
            if values
        },
        absent={name: reason for name, (_, reason) in METRICS.items() if not gathered[name]},
    )


def _cut(name: str, samples: Sequence[Sample]) -> int | None:
    """How many infinite samples of a first action are of cut answers; None = not known, or no first action."""
    if not name.startswith("ttfa"):
        return None
    measured = [sample for sample in samples if isinstance(sample, SpeedSample)]
    if len(measured) < len(samples):
        return None
    return sum(sample.cut and sample.values().get(name) == math.inf for sample in measured)


def by_shape(samples: Iterable[SpeedSample]) -> dict[int, SpeedMetrics]:
    """The metrics of each shape that has samples, the smallest shape first."""
    shapes: dict[int, list[SpeedSample]] = {}
    for sample in samples:
        if sample.prompt.shape is not None:
            shapes.setdefault(sample.prompt.shape, []).append(sample)
    return {shape: aggregate_speed_metrics(shapes[shape]) for shape in sorted(shapes)}
