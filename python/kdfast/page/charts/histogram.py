"""A histogram; infinite samples (the event never came) get a bar of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.charts.axis import Axis, grid, labels, trim
from kdfast.page.wording import counted, number, share


@dataclass(frozen=True)
class Mark:
    """A value to point out, such as a percentile or a limit.

    Attributes:
        label: its name.
        value: its place on the axis; infinite = at the bar of the infinite samples.
        style: its class in the style sheet: `p50`, `p95`, `shortest`, `limit`.
    """

    label: str
    value: float
    style: str


def histogram(
    samples: Sequence[float], marks: Sequence[Mark], *, title: str, unit: str, note: str = ""
) -> Markup:
    """A histogram with a small tick for each sample, and a separate bar for the infinite ones.

    Args:
        samples: the samples, at least one; some may be infinite.
        marks: values to mark by a line across the bars.
        title: the chart's title.
        unit: the unit of the samples.
        note: a remark beside the title.

    Returns:
        A figure element.

    Examples:
        >>> chart = histogram([20.0, 30.0, math.inf], [], title="first action", unit="tokens")
        >>> "never: 1 of 3 (33 %)" in chart
        True
    """
    finite = sorted(sample for sample in samples if math.isfinite(sample))
    infinite = len(samples) - len(finite)
    whole = unit == "tokens"
    near = [*finite, *(mark.value for mark in marks if math.isfinite(mark.value))]
    x = Axis.around(min(near, default=0.0), max(near, default=1.0), whole=whole)
    edges = _edges(x, len(finite), whole=whole)
    bars = [0] * len(edges)
    for value in finite:  # clamped, because rounding may put a value outside the bins
        bars[min(max(int(x.percent(value) / 100 * len(edges) + 1e-9), 0), len(edges) - 1)] += 1
    y = Axis.around(0.0, float(max([*bars, infinite, 1])), whole=True)
    return Markup(
        '<figure class="chart"><figcaption><b>{}</b> <span class="note">{}</span></figcaption>'
        '<div class="marks">{}</div><div class="distribution"><div class="plot">{}'
        '<svg role="img" aria-label="{}">{}{}{}{}</svg>{}</div>{}</div>'
        "</figure>"
    ).format(
        title,
        note,
        Markup("").join(_name(mark) for mark in marks),
        labels(y, "left"),
        f"{title}: {counted(len(samples), 'sample')}, {infinite} never",
        grid(y),
        Markup("").join(_bar(*edge, bar, x, y, unit) for edge, bar in zip(edges, bars, strict=True) if bar),
        Markup("").join(
            Markup('<line class="rug" x1="{0}%" x2="{0}%" y1="100%" y2="94%"/>').format(
                trim(x.percent(value))
            )
            for value in finite[:: max(1, len(finite) // 300)]
        ),
        Markup("").join(_line(mark, x) for mark in marks if math.isfinite(mark.value)),
        labels(x, "bottom"),
        _never(infinite, len(samples), y, [mark for mark in marks if math.isinf(mark.value)]),
    )


def _edges(x: Axis, count: int, *, whole: bool) -> list[tuple[float, float]]:
    """The edges of the bins: 1 to 8 bins between two ticks, more if there are many samples."""
    stretch = x.ticks[1] - x.ticks[0]
    parts = 2 if count < 20 else 4 if count < 200 else 8
    if whole:
        parts = max(part for part in range(1, parts + 1) if stretch % part == 0)
    bins = (len(x.ticks) - 1) * parts
    return [(x.low + index * stretch / parts, x.low + (index + 1) * stretch / parts) for index in range(bins)]


def _bar(low: float, high: float, count: int, x: Axis, y: Axis, unit: str) -> Markup:
    left, right, height = x.percent(low), x.percent(high), y.percent(count)
    return Markup(
        '<rect class="bar" x="{}%" y="{}%" width="{}%" height="{}%"><title>{} to {} {}: {}</title></rect>'
    ).format(
        trim(left + 0.15),
        trim(100 - height),
        trim(right - left - 0.3),
        trim(height),
        number(low),
        number(high),
        unit,
        counted(count, "sample"),
    )


def _line(mark: Mark, x: Axis) -> Markup:
    return Markup('<line class="at {1}" x1="{0}%" x2="{0}%" y1="0" y2="100%"/>').format(
        trim(x.percent(mark.value)), mark.style
    )


def _name(mark: Mark) -> Markup:
    return Markup('<span class="key {}">{} <b>{}</b></span>').format(
        mark.style, mark.label, number(mark.value)
    )


def _never(infinite: int, count: int, y: Axis, marks: Sequence[Mark]) -> Markup:
    """The separate bar of the infinite samples."""
    if not infinite:
        return Markup("")
    text = f"never: {infinite} of {count} ({share(infinite / count)})"
    return Markup(
        '<div class="never" title="{0}"><svg role="img" aria-label="{0}">{1}'
        '<rect class="bar bad" x="15%" width="70%" y="{2}%" height="{3}%"/></svg>'
        '<span class="count" style="bottom:{3}%">{4}</span><span class="names">{5}</span>'
        '<div class="x"><span>never</span></div></div>'
    ).format(
        text,
        grid(y),
        trim(100 - y.percent(infinite)),
        trim(y.percent(infinite)),
        infinite,
        ", ".join(mark.label for mark in marks),
    )
