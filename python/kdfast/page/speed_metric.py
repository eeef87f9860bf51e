"""One metric of a speed report, infinite samples included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.page.wording import counted, infinite_word, number, share
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
    """One metric of a speed report. A sample is infinite if the event did not come (no first action).

    Attributes:
        name: the metric's name in the report.
        unit: the unit of its numbers.
        median: p50.
        tail: p90 and p95; for a rate, where low is slow, p10 and p5.
        count: how many samples there are.
        infinite: how many of them are infinite.
        cut: how many of the infinite ones are of answers that the token limit cut, so that the event may have come
            later; None = the report does not say.
        samples: all samples; empty if the report has none.
    """

    name: str
    unit: str
    median: float
    tail: tuple[float, float]
    count: int
    infinite: int
    cut: int | None
    samples: Sequence[float]

    @property
    def label(self) -> str:
        """The metric's name for people."""
        return _LABELS.get(self.name, self.name)

    @property
    def never(self) -> int:
        """How many samples are infinite and not known to be cut."""
        return self.infinite - (self.cut or 0)

    def text(self, value: float) -> str:
        """One of its numbers; an infinite one is "never", "cut" or, if both may be meant, "no call"."""
        return number(value) if math.isfinite(value) else infinite_word(self.infinite, self.cut)

    def without(self) -> str:
        """On how many prompts the event did not come, such as `never on 2 of 24 prompts (8.3 %)`; "" = on none."""
        kinds = {
            "never on" if self.cut is not None else "no call on": self.never,
            "cut before a call on": self.cut or 0,
        }
        told = [(what, count, share(count / self.count)) for what, count in kinds.items() if count]
        of = f"of {counted(self.count, 'prompt')} "
        return ", ".join(
            f"{what} {count} {of * (index == 0)}({part})" for index, (what, count, part) in enumerate(told)
        )

    @property
    def part(self) -> bool:
        """Whether it is a part, or another view, of the metric that is shown above it."""
        return self.name in _PARTS


def read_metric(name: str, node: Node, prompts: Sequence[Node] | None = None) -> SpeedMetric:
    """Reads a metric object of a speed report.

    Args:
        name: the metric's name.
        node: the metric object.
        prompts: the report's prompts. They tell how many answers were cut if the metric does not, as in reports of
            older versions; None = the report has none, or they are not those of this metric.

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
    cut = _cut(name, node, infinite, prompts)
    tail = ("p10", "p5") if name == "tps" else ("p90", "p95")
    samples = node.find("samples")
    return SpeedMetric(
        name=name,
        unit=node["unit"].text(),
        median=level(node, "p50", infinite),
        tail=(level(node, tail[0], infinite), level(node, tail[1], infinite)),
        count=count,
        infinite=infinite,
        cut=cut,
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


def _cut(name: str, node: Node, infinite: int, prompts: Sequence[Node] | None) -> int | None:
    found = node.find("cut")
    if found is not None and found.count() > infinite:
        raise found.wrong(f"at most the number of infinite samples ({infinite})")
    if found is not None or not infinite:
        return found.count() if found is not None else 0
    if prompts is None:
        return None
    ended = [
        prompt.find("ended") for prompt in prompts if name in prompt.object() and prompt.find(name) is None
    ]
    known = [one.flag() for one in ended if one is not None]
    return known.count(False) if len(known) == infinite else None
