"""The section of speed: how the times and the first actions are distributed, and how they went over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.config import GatesConfig
from kdfast.page.charts import Line, Mark, histogram, line_chart
from kdfast.page.history import Entry, History, Points, series
from kdfast.page.node import Node
from kdfast.page.run_files import Missing, RunFiles
from kdfast.page.wording import counted, number, share

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
}
_PARTS = (
    "ttft_tokenise_ms",
    "ttft_prefill_ms",
    "ttft_first_token_ms",
    "ttfa_name_tokens",
    "ttfa_overhead_tokens",
    "ttfa_ms",
)
_DRAWN = {
    "ttft_ms": "time to first token",
    "ttfa_tokens": "tokens to the first action",
    "tps": "tokens per second",
}
_FEW = 20
"""With fewer samples the p95 is the greatest of them."""


@dataclass(frozen=True, kw_only=True)
class SpeedMetric:
    """One metric of the report; infinite where what was waited for never came.

    Attributes:
        name: in the report.
        unit: of its numbers.
        median: p50.
        tail: p90 and p95; of a rate, whose slow tail is the low one, p10 and p5.
        count: how many samples there are.
        infinite: how many of them are infinite.
        samples: all of them; empty where the report has none.
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
        """What people call it."""
        return _LABELS.get(self.name, self.name)

    @property
    def part(self) -> bool:
        """Whether it is a part, or another view, of the metric above it."""
        return self.name in _PARTS


@dataclass(frozen=True, kw_only=True)
class SpeedSection:
    """What the page shows of speed.

    Attributes:
        missing: the report, where it is missing.
        metrics: by name.
        shapes: (shape, median of each metric or None).
        absent: (reason, names) of what was not measured.
        charts: distributions.
        history: charts over the steps.
        few: a warning about a small number of samples; "" where there are enough.
        facts: (name, value) of machine and decoding.
    """

    missing: Missing | None
    metrics: dict[str, SpeedMetric]
    shapes: Sequence[tuple[str, dict[str, float]]]
    absent: Sequence[tuple[str, str]]
    charts: Sequence[Markup]
    history: Sequence[Markup]
    few: str
    facts: Sequence[tuple[str, str]]


def speed_section(files: RunFiles, history: History) -> SpeedSection:
    """What the page shows of speed.

    Raises:
        DataError: the report is not as `kdfast train` writes it; names file and key.
    """
    report = files.speed
    curves = _history(history.speed)
    if isinstance(report, Missing):
        return SpeedSection(
            missing=report,
            metrics={},
            shapes=[],
            absent=[],
            charts=[],
            history=curves,
            few="",
            facts=[],
        )
    if report["kind"].text() != "kdfast.speed_report":
        raise report["kind"].wrong("'kdfast.speed_report'")
    metrics = {name: _metric(name, node) for name, node in report["metrics"].items()}
    prompts = max((metric.count for name, metric in metrics.items() if name != "itl_ms"), default=0)
    slices = report.find("shapes")
    return SpeedSection(
        missing=None,
        metrics=metrics,
        shapes=[(shape, _medians(part)) for shape, part in (slices.items() if slices else ())],
        absent=_absent(report["absent"]),
        charts=[
            _distribution(metrics[name], title, _marks(metrics[name], report, files.config.gates))
            for name, title in _DRAWN.items()
            if name in metrics and metrics[name].samples
        ],
        history=curves,
        few=f"only {counted(prompts, 'prompt')}: p90 and p95 are about the slowest"
        if 0 < prompts < _FEW
        else "",
        facts=_facts(report),
    )


def _metric(name: str, node: Node) -> SpeedMetric:
    infinite = node["infinite"].count()
    tail = ("p10", "p5") if name == "tps" else ("p90", "p95")
    samples = node.find("samples")
    return SpeedMetric(
        name=name,
        unit=node["unit"].text(),
        median=_level(node, "p50", infinite),
        tail=(_level(node, tail[0], infinite), _level(node, tail[1], infinite)),
        count=node["count"].count(),
        infinite=infinite,
        samples=[math.inf if one.value is None else one.number() for one in samples.list()]
        if samples
        else (),
    )


def _level(node: Node, key: str, infinite: int) -> float:
    """A percentile; null beside infinite samples means that it is infinite."""
    found = node.find(key)
    if found is None and infinite and key in node.object():
        return math.inf
    return node[key].number()


def _medians(part: Node) -> dict[str, float]:
    return {name: _level(node, "p50", node["infinite"].count()) for name, node in part["metrics"].items()}


def _absent(absent: Node) -> list[tuple[str, str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in absent.items():
        reasons.setdefault(reason.text(), []).append(name)
    return [(reason, ", ".join(names)) for reason, names in reasons.items()]


def _distribution(metric: SpeedMetric, title: str, marks: Sequence[Mark]) -> Markup:
    note = f"{metric.unit}, {counted(metric.count, 'prompt')}"
    if metric.infinite:
        note += f"; never on {metric.infinite} ({share(metric.infinite / metric.count)})"
    return histogram(metric.samples, marks, title=title, unit=metric.unit, note=note)


def _marks(metric: SpeedMetric, report: Node, gates: GatesConfig) -> list[Mark]:
    """Percentiles; for the first action also what the right answers need, and the limit of the p95."""
    tail = "p5" if metric.name == "tps" else "p95"
    marks = [Mark("p50", metric.median, "p50"), Mark(tail, metric.tail[1], "p95")]
    if metric.name == "ttfa_tokens":
        shortest = report.find("shortest_call_tokens")
        if shortest is not None:
            marks.append(Mark("p95 of the shortest right calls", _level(shortest, "p95", 0), "shortest"))
        if "ttfa_p95" in gates.enabled and gates.ttfa_metric == metric.name:
            marks.append(Mark("gate: p95 at most", gates.ttfa_p95_tokens, "limit"))
    return marks


def _history(entries: Sequence[Entry]) -> list[Markup]:
    """How the medians went, where there were several measurements."""
    if len({entry.step for entry in entries}) < 2:
        return []
    charts = []
    for name, title in (("ttft_ms", "time to first token (ms)"), ("tps", "tokens per second")):
        tail = "p5" if name == "tps" else "p95"
        lines = [
            Line(label="p50", points=series(entries, f"{name}.p50"), style="held", dots=True),
            Line(label=tail, points=series(entries, f"{name}.{tail}"), style="second", dots=True),
        ]
        highest = max((value for line in lines for _, value in line.points), default=0.0)
        if highest > 0:
            charts.append(line_chart(lines, title=title, bounds=(0.0, highest)))
    never = _never(entries)
    if never:
        lines = [Line(label="prompts", points=never, style="held", dots=True)]
        title = "prompts without a first action"
        charts.append(line_chart(lines, title=title, read=share, bounds=(0.0, 1.0)))
    return charts


def _never(entries: Sequence[Entry]) -> Points:
    both = ("ttfa_tokens.infinite", "ttfa_tokens.count")
    return [
        (float(entry.step), entry.values[both[0]] / entry.values[both[1]])
        for entry in entries
        if entry.values.get(both[1]) and both[0] in entry.values
    ]


def _facts(report: Node) -> list[tuple[str, str]]:
    hardware = report["hardware"]
    facts = [("hardware", hardware["key"].text())]
    load = hardware.find("load_average")
    if load is not None:
        facts.append(("load average", " / ".join(number(one.number()) for one in load.list())))
    versions = hardware.find("versions")
    if versions is not None:
        facts.append(("versions", ", ".join(f"{name} {one.text()}" for name, one in versions.items())))
    decoding = report.find("decoding")
    if decoding is not None:
        facts.append(("decoding", ", ".join(f"{name} {one.value}" for name, one in decoding.items())))
    step = report.find("step")
    facts.append(("measured", f"at step {step.count():,}, in training" if step else "on a finished model"))
    return facts
