"""A measurement as a table for people."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.markup import escape
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
    "ttfa_overhead_tokens": "  beyond the shortest call",
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
    """The numbers for a log: `ttft_ms.p50`, `ttft_ms.p90`, ..., and `ttfa_tokens.infinite`, `ttfa_tokens.count`."""
    values: dict[str, float] = {}
    for name, metric in speed.metrics.items():
        values |= {f"{name}.p{level}": metric.percentile(level) for level in tail_levels(name)}
        if name.startswith("ttfa"):
            values |= {f"{name}.infinite": float(metric.infinite), f"{name}.count": float(metric.count)}
    return values


def speed_table(speed: SpeedMetrics, shapes: Mapping[int, SpeedMetrics] | None = None) -> Table:
    """A rich table: one row per metric, one column per percentile, and the medians of each shape.

    Args:
        speed: the metrics over all prompts.
        shapes: the metrics of each shape, as `by_shape` gives them; shown if there are several shapes.
    """
    sliced = shapes if shapes is not None and len(shapes) > 1 else {}
    table = Table(title="Speed (batch 1, greedy, KV cache)", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for heading in ("p50", "p90", "p95", "unit", "n", "never", *(f"p50 at {shape}" for shape in sliced)):
        table.add_column(heading, justify="left" if heading == "unit" else "right", no_wrap=True)
    for name, metric in speed.metrics.items():
        slices = [_shown(part.metrics.get(name)) for part in sliced.values()]
        levels = [_number(metric.percentile(level)) for level in tail_levels(name)]
        never = str(metric.infinite) if name.startswith("ttfa") else ""
        table.add_row(_LABELS[name], *levels, metric.unit, str(metric.count), never, *slices)
    if "tps" in speed.metrics:
        table.caption = "p90 and p95 are the slow tail: of tokens per second the lowest 10 % and 5 %"
        table.caption_justify = "left"
    return table


def absences(speed: SpeedMetrics) -> list[str]:
    """One line per reason, with the metrics that are absent for this reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in speed.absent.items():
        reasons.setdefault(reason, []).append(name)
    return [escape(f"not measured: {', '.join(names)}: {reason}") for reason, names in reasons.items()]


def _shown(metric: Metric | None) -> str:
    return "-" if metric is None else _number(metric.percentile(50))


def _number(value: float) -> str:
    if math.isinf(value):
        return "never"
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"
