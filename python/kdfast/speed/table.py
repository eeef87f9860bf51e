"""A measurement as a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from kdfast.speed.aggregate import SpeedMetrics
from kdfast.speed.metric import Metric

_LABELS = {
    "ttft_ms": "time to first token",
    "ttft_tokenise_ms": "  tokenise",
    "ttft_prefill_ms": "  prefill",
    "ttft_first_token_ms": "  first token",
    "itl_ms": "inter-token latency",
    "tpot_ms": "time per output token",
    "tps": "tokens per second",
    "ttfa_tokens": "first action: call",
    "ttfa_name_tokens": "  its function name",
    "ttfa_overhead_tokens": "  beyond the shortest",
    "ttfa_ms": "  in time",
    "prompt_tokens": "prompt",
    "output_tokens": "answer",
    "thinking_tokens": "  thinking blocks",
}


def tail_levels(name: str) -> tuple[int, int, int]:
    """The percentiles to show: the median and two of the slow tail. A rate is slow where it is low.

    Example:
        >>> tail_levels("ttft_ms"), tail_levels("tps")
        ((50, 90, 95), (50, 10, 5))
    """
    return (50, 10, 5) if name == "tps" else (50, 90, 95)


def headline(speed: SpeedMetrics) -> dict[str, float]:
    """The numbers for a log: `ttft_ms.p50`, ..., and `ttfa_tokens.infinite`, `ttfa_tokens.cut`, `ttfa_tokens.count`."""
    values: dict[str, float] = {}
    for name, metric in speed.metrics.items():
        values |= {f"{name}.p{level}": metric.percentile(level) for level in tail_levels(name)}
        if name.startswith("ttfa"):
            values |= {f"{name}.infinite": float(metric.infinite), f"{name}.count": float(metric.count)}
        if metric.cut is not None:
            values[f"{name}.cut"] = float(metric.cut)
    return values


@dataclass(frozen=True)
class SpeedTable:
    """What `speed_table` gives: one table if it is not too wide for the console, else several, one below the other.

    The medians of the shapes go to tables of their own if they do not fit beside the rest. No cell is cut short, at
    any width: a log is 80 columns wide, and nobody can widen it afterwards. Below about 80 columns cells are folded.

    Attributes:
        speed: the metrics over all prompts.
        shapes: the metrics of each shape; empty = no medians by shape.
    """

    speed: SpeedMetrics
    shapes: Mapping[int, SpeedMetrics]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._table(list(self.shapes))
        if not self.shapes or _fits(whole, console, options):
            yield whole
            return
        yield self._table([])
        shapes = list(self.shapes)
        while shapes:
            count = len(shapes)
            while count > 1 and not _fits(self._shape_table(shapes[:count]), console, options):
                count -= 1
            yield self._shape_table(shapes[:count])
            shapes = shapes[count:]

    def _table(self, shapes: Sequence[int]) -> Table:
        table = _empty("Speed (batch 1, greedy, KV cache)")
        for heading in (
            "p50",
            "p90",
            "p95",
            "unit",
            "n",
            "no call",
            *(f"p50 at {shape}" for shape in shapes),
        ):
            table.add_column(heading, justify="left" if heading == "unit" else "right", overflow="fold")
        for name, metric in self.speed.metrics.items():
            levels = [_shown(metric, level) for level in tail_levels(name)]
            without = str(metric.infinite) if name.startswith("ttfa") else ""
            cells = (*levels, metric.unit, str(metric.count), without, *self._medians(name, shapes))
            table.add_row(_LABELS[name], *cells)
        table.caption = "\n".join(self._notes())
        table.caption_justify = "left"
        return table

    def _notes(self) -> Iterator[str]:
        if "tps" in self.speed.metrics:
            yield "p90 and p95 are the slow tail: of tokens per second the lowest 10 % and 5 %"
        action = self.speed.metrics.get("ttfa_tokens")
        if action is not None and action.cut:
            yield f"no call: the token limit cut {action.cut} of {action.infinite} answers before one came"

    def _shape_table(self, shapes: Sequence[int]) -> Table:
        table = _empty("Medians (p50) by shape")
        for shape in shapes:
            table.add_column(str(shape), justify="right", overflow="fold")
        for name in self.speed.metrics:
            table.add_row(_LABELS[name], *self._medians(name, shapes))
        return table

    def _medians(self, name: str, shapes: Sequence[int]) -> list[str]:
        found = [self.shapes[shape].metrics.get(name) for shape in shapes]
        return ["-" if metric is None else _shown(metric, 50) for metric in found]


def speed_table(speed: SpeedMetrics, shapes: Mapping[int, SpeedMetrics] | None = None) -> SpeedTable:
    """A table for a rich console: one row per metric, one column per percentile, and the medians of each shape.

    Args:
        speed: the metrics over all prompts.
        shapes: the metrics of each shape, as `by_shape` gives them; shown if there are several shapes.

    Example:
        >>> from rich.console import Console
        >>> from kdfast.speed import aggregate_speed_metrics
        >>> Console(width=80).print(speed_table(aggregate_speed_metrics([{"ttfa_tokens": 31.0}])))
        Speed (batch 1, greedy, KV cache)
        ...
        first action: call 31 31 31 tokens 1 0
    """
    return SpeedTable(speed, shapes if shapes is not None and len(shapes) > 1 else {})


def _empty(title: str) -> Table:
    """A table without vertical lines: they would take 15 of 80 columns."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("metric", overflow="fold")
    return table


def _fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    endless = options.update(max_width=10_000)
    return Measurement.get(console, endless, table).maximum <= options.max_width


def absences(speed: SpeedMetrics) -> list[str]:
    """One line per reason, with the metrics that are absent for this reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in speed.absent.items():
        reasons.setdefault(reason, []).append(name)
    return [escape(f"not measured: {', '.join(names)}: {reason}") for reason, names in reasons.items()]


def _shown(metric: Metric, level: int) -> str:
    """A percentile. Infinite: "never", "cut" if the token limit cut all such answers, or "no call" if it cut some."""
    value = metric.percentile(level)
    if math.isinf(value):
        return metric.infinite_word if metric.never in (0, metric.infinite) else "no call"
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"
