"""How times and first actions are distributed, and how they went in training."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from kdfast.config import GatesConfig
from kdfast.page.charts import Line, Mark, histogram, line_chart
from kdfast.page.history import Entry, Points, series
from kdfast.page.speed_metric import SpeedMetric, level
from kdfast.page.wording import counted, share
from kdfast.runs.node import Node


def distribution(metric: SpeedMetric, title: str, marks: Sequence[Mark]) -> Markup:
    """The samples of a metric, of which there is at least one.

    Args:
        metric: with its samples.
        title: what people call it.
        marks: of `marks_of`.
    """
    note = f"{metric.unit}, {counted(metric.count, 'prompt')}"
    if metric.infinite:
        note += f"; never on {metric.infinite} ({share(metric.infinite / metric.count)})"
    return histogram(metric.samples, marks, title=title, unit=metric.unit, note=note)


def marks_of(metric: SpeedMetric, report: Node, gates: GatesConfig) -> list[Mark]:
    """Percentiles; for the first action also what the right answers need, and the limit of the p95."""
    tail = "p5" if metric.name == "tps" else "p95"
    marks = [Mark("p50", metric.median, "p50"), Mark(tail, metric.tail[1], "p95")]
    if metric.name == "ttfa_tokens":
        shortest = report.find("shortest_call_tokens")
        if shortest is not None:
            marks.append(Mark("p95 of the shortest right calls", level(shortest, "p95", 0), "shortest"))
        if "ttfa_p95" in gates.enabled and gates.ttfa_metric == metric.name:
            marks.append(Mark("gate: p95 at most", gates.ttfa_p95_tokens, "limit"))
    return marks


def speed_history(entries: Sequence[Entry]) -> list[Markup]:
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
