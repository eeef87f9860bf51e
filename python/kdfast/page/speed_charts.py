"""Charts of times and first actions: their distribution, and how they changed during training."""

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
    """A histogram of the samples of a metric.

    Args:
        metric: the metric; it has at least one sample.
        title: the chart's title.
        marks: the values to mark, as `marks_of` gives them.
    """
    note = f"{metric.unit}; {metric.without() or counted(metric.count, 'prompt')}"
    return histogram(metric.samples, marks, title=title, unit=metric.unit, note=note, cut=metric.cut)


def marks_of(metric: SpeedMetric, report: Node, gates: GatesConfig) -> list[Mark]:
    """The values to mark: percentiles; for the first action also the shortest right calls and the gate's limit."""
    tail = "p5" if metric.name == "tps" else "p95"
    marks = [
        Mark("p50", metric.median, "p50", metric.text(metric.median)),
        Mark(tail, metric.tail[1], "p95", metric.text(metric.tail[1])),
    ]
    if metric.name == "ttfa_tokens":
        shortest = report.find("shortest_call_tokens")
        if shortest is not None:
            marks.append(Mark("p95 of the shortest right calls", level(shortest, "p95", 0), "shortest"))
        if "ttfa_p95" in gates.enabled and gates.ttfa_metric == metric.name:
            marks.append(Mark("gate: p95 at most", gates.ttfa_p95_tokens, "limit"))
    return marks


def speed_history(entries: Sequence[Entry]) -> list[Markup]:
    """Charts over the training steps; none if speed was measured only once."""
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
    without_action = _share_of_prompts(entries, "ttfa_tokens.infinite")
    if without_action:
        lines = [
            Line(label="no call", points=without_action, style="held", dots=True),
            Line(
                label="of these cut at the limit",
                points=_share_of_prompts(entries, "ttfa_tokens.cut"),
                style="second",
                dots=True,
            ),
        ]
        title = "prompts without a first action"
        charts.append(line_chart(lines, title=title, read=share, bounds=(0.0, 1.0)))
    return charts


def _share_of_prompts(entries: Sequence[Entry], name: str) -> Points:
    count = "ttfa_tokens.count"
    return [
        (float(entry.step), entry.values[name] / entry.values[count])
        for entry in entries
        if entry.values.get(count) and name in entry.values
    ]
