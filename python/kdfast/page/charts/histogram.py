"""A histogram; infinite samples (the event did not come) get a bar of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.charts.axis import Axis, grid, labels, left_margin, tick_texts, trim
from kdfast.page.wording import NEVER, counted, infinite_word, number, share

_HIGH = 70
"""A bar above this percentage has its labels inside, so that they do not touch what stands above the chart."""


@dataclass(frozen=True)
class Mark:
    """A value to point out, such as a percentile or a limit.

    Attributes:
        label: its name.
        value: its place on the axis; infinite = at the bar of the infinite samples.
        style: its class in the style sheet: `p50`, `p95`, `shortest`, `limit`.
        text: the value in words; "" = its number.
    """

    label: str
    value: float
    style: str
    text: str = ""


def histogram(
    samples: Sequence[float],
    marks: Sequence[Mark],
    *,
    title: str,
    unit: str,
    note: str = "",
    cut: int | None = 0,
) -> Markup:
    """A histogram with a small tick for each sample, and a separate bar for the infinite ones.

    Args:
        samples: the samples, at least one; some may be infinite.
        marks: values to mark by a line across the bars.
        title: the chart's title.
        unit: the unit of the samples.
        note: a remark beside the title.
        cut: how many infinite samples are of answers that were cut at the token limit; None = not known.

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
        '<div class="marks">{}</div><div class="distribution"><div class="plot"{}>{}'
        '<svg role="img" aria-label="{}">{}{}{}{}</svg>{}</div>{}</div>'
        "</figure>"
    ).format(
        title,
        note,
        Markup("").join(_name(mark) for mark in marks),
        left_margin(tick_texts(y.ticks)),
        labels(y, "left"),
        f"{title}: {counted(len(samples), 'sample')}, {infinite} {infinite_word(infinite, cut)}",
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
        _infinite(infinite, cut, len(samples), y, [mark for mark in marks if math.isinf(mark.value)]),
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
        mark.style, mark.label, mark.text or number(mark.value)
    )


def _infinite(infinite: int, cut: int | None, count: int, y: Axis, marks: Sequence[Mark]) -> Markup:
    """The separate bar of the infinite samples: those that never came below, those that were cut above."""
    if not infinite:
        return Markup("")
    word, never = infinite_word(infinite, cut), infinite - (cut or 0)
    parts = [("bad", NEVER if cut is not None else word, 0, never), ("cut", "cut", never, infinite)]
    parts = [part for part in parts if part[2] < part[3]]
    told = "; ".join(
        f"{name}: {end - start} of {count} ({share((end - start) / count)})" for _, name, start, end in parts
    )
    bars = Markup("").join(
        Markup(
            '<rect class="bar {}" x="15%" width="70%" y="{}%" height="{}%"><title>{}: {}</title></rect>'
        ).format(
            style, trim(100 - y.percent(end)), trim(y.percent(end) - y.percent(start)), name, end - start
        )
        for style, name, start, end in parts
    )
    top = y.percent(infinite)
    place = f"top:{trim(100 - top)}%" if top > _HIGH else f"bottom:{trim(top)}%"
    return Markup(
        '<div class="never {6}" title="{0}"><svg role="img" aria-label="{0}">{1}{2}</svg>'
        '<span class="count {7}" style="{3}"><small>{4}</small>{5}</span>'
        '<div class="x"><span>{8}</span></div></div>'
    ).format(
        told,
        grid(y),
        bars,
        place,
        ", ".join(mark.label for mark in marks),
        infinite,
        parts[-1][0],
        "inside" if top > _HIGH else "above",
        word,
    )
