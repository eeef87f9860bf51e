"""One metric of a speed report, infinite samples included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.runs.node import Node

_LABELS = {
    "ttft_ms": "time to first token",
    "ttft_tokenise_ms": "tokenise",
    "ttft_prefill_ms": "prefill",
    "ttft_first_token_ms": "first token",
    "itl_ms": "inter-token latency",
    "tpot_ms": "time per output token",
    "tps": "tokens per second",
    "ttfa_tokens": "first action: a valid call",
    "ttfa_name_tokens": "its function name",
    "ttfa_overhead_tokens": "beyond the shortest right call",
    "ttfa_ms": "in time",
    "prompt_tokens": "prompt",
    "output_tokens": "answer",
    "thinking_tokens": "thinking blocks",
}
_PARTS = (
    "ttft_tokenise_ms",
    "ttft_prefill_ms",
    "ttft_first_token_ms",
    "ttfa_name_tokens",
    "ttfa_overhead_tokens",
    "ttfa_ms",
    "thinking_tokens",
)


@dataclass(frozen=True, kw_only=True)
class SpeedMetric:
    """One metric of a speed report. A sample is infinite if the event never came (no first action).

    Attributes:
        name: the metric's name in the report.
        unit: the unit of its numbers.
        median: p50.
        tail: p90 and p95; for a rate, where low is slow, p10 and p5.
        count: how many samples there are.
        infinite: how many of them are infinite.
        samples: all samples; empty if the report has none.
    """

    name: str
    unit: str
    median: float
    tail: tuple[float, float]
    count: int
    infinite: int
    samples: Sequence[float]

    @property
    def label(self) -> str:
        """The metric's name for people."""
        return _LABELS.get(self.name, self.name)

    @property
    def part(self) -> bool:
        """Whether it is a part, or another view, of the metric that is shown above it."""
        return self.name in _PARTS


def read_metric(name: str, node: Node) -> SpeedMetric:
    """Reads a metric object of a speed report.

    Raises:
        DataError: it is not a metric object; the message names file and key.

    Examples:
        >>> levels = {"p50": 30.0, "p90": None, "p95": None}
        >>> found = {"unit": "tokens", **levels, "count": 2, "infinite": 1, "samples": [30.0, None]}
        >>> read_metric("ttfa_tokens", Node(found, "speed.json", "measure again")).samples
        [30.0, inf]
    """
    count, infinite = node["count"].count(), node["infinite"].count()
    if infinite > count:
        raise node["infinite"].wrong(f"at most the count ({count})")
    tail = ("p10", "p5") if name == "tps" else ("p90", "p95")
    samples = node.find("samples")
    return SpeedMetric(
        name=name,
        unit=node["unit"].text(),
        median=level(node, "p50", infinite),
        tail=(level(node, tail[0], infinite), level(node, tail[1], infinite)),
        count=count,
        infinite=infinite,
        samples=[math.inf if one.value is None else one.number() for one in samples.list()]
        if samples
        else (),
    )


def level(node: Node, key: str, infinite: int) -> float:
    """One percentile; null in a metric with infinite samples means infinite."""
    found = node.find(key)
    if found is None and infinite and key in node.object():
        return math.inf
    return node[key].number()
