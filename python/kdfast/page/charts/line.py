"""A chart of lines over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.charts.axis import Axis, grid, labels, left_margin, tick_texts, trim
from kdfast.page.wording import number

MOST_POINTS = 600
"""A line of more points is thinned: no screen shows more."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line.

    Attributes:
        label: its name in the legend.
        points: (step, value) in the order of the steps; the line has a gap at a value that is not finite.
        style: its class in the style sheet: `faint`, `train`, `held`, `second`.
        dots: whether each point is a dot that shows its value when the mouse is over it.
    """

    label: str
    points: Points
    style: str
    dots: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    note: str = "",
    read: Callable[[float], str] = number,
    steps: tuple[float, float] | None = None,
    bounds: tuple[float, float] | None = None,
    legend: bool = True,
) -> Markup:
    """A chart of lines over steps.

    Args:
        lines: the lines; those without a finite point are left out, and at least one must have one.
        title: the chart's title.
        note: a remark beside the title.
        read: turns a value into text. The values' axis has its own digits if it is `number`.
        steps: the range of steps; None = the range of the lines.
        bounds: the range of values; None = the range of the lines. Both ends are extended to round numbers.
        legend: whether to show a legend if there are several lines.

    Returns:
        A figure element.

    Examples:
        >>> chart = line_chart([Line(label="loss", points=[(0, 0.7), (8, 0.2)], style="held")], title="loss")
        >>> '<path class="held" d="M0 125L1000 750"/>' in chart
        True
    """
    drawn = [line for line in lines if any(math.isfinite(value) for _, value in line.points)]
    values = [value for line in drawn for _, value in line.points if math.isfinite(value)]
    at = [step for line in drawn for step, _ in line.points]
    x = Axis.between(*(steps or (min(at), max(at))))
    y = Axis.around(*(bounds or (min(values), max(values))))
    texts = tick_texts(y.ticks) if read is number else [read(tick) for tick in y.ticks]
    paths = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(line.style, _path(thin(line.points), x, y))
        for line in drawn
    )
    dots = Markup("").join(_dots(line, x, y, read) for line in drawn if line.dots)
    return Markup(
        '<figure class="chart"><figcaption><b>{}</b>{}{}</figcaption><div class="plot"{}>{}'
        '<svg role="img" aria-label="{}">{}<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{}</svg>{}</svg>'
        "{}</div></figure>"
    ).format(
        title,
        Markup(' <span class="note">{}</span>').format(note) if note else "",
        _legend(drawn) if legend else "",
        left_margin(texts),
        labels(y, "left", texts),
        _spoken(title, drawn, read),
        grid(y),
        paths,
        dots,
        labels(x, "bottom"),
    )


def thin(points: Points, most: int = MOST_POINTS) -> Points:
    """Keeps about `most` points: the lowest and the highest of each section, so that no spike is lost.

    Examples:
        >>> spiky = [(step, 9.0 if step == 70 else 0.0) for step in range(100)]
        >>> shorter = thin(spiky, most=10)
        >>> len(shorter) <= 12, (70, 9.0) in shorter
        (True, True)
    """
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept = [points[0]]
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += [point for point in sorted(ends) if point != kept[-1]]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def smooth(points: Points, window: int) -> list[tuple[float, float]]:
    """The exponential moving average over about `window` points, corrected for its start at 0.

    Examples:
        >>> smooth([(1, 2.0), (2, 2.0), (3, 2.0)], window=10)
        [(1, 2.0), (2, 2.0), (3, 2.0)]
    """
    decay, mean, weight, smoothed = 1 - 1 / max(1, window), 0.0, 0.0, []
    for step, value in points:
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        smoothed.append((step, mean / weight))
    return smoothed


def _path(points: Points, x: Axis, y: Axis) -> str:
    parts, pen_down = [], False
    for step, value in points:
        if not math.isfinite(value):
            pen_down = False
            continue
        place = f"{trim(10 * x.percent(step))} {trim(1000 - 10 * y.percent(value))}"
        parts.append(f"{'L' if pen_down else 'M'}{place}")
        pen_down = True
    return "".join(parts)


def _dots(line: Line, x: Axis, y: Axis, read: Callable[[float], str]) -> Markup:
    dot = Markup('<circle class="{}" cx="{}%" cy="{}%" r="4"><title>{} at step {:.0f}: {}</title></circle>')
    return Markup("").join(
        dot.format(
            line.style,
            trim(x.percent(step)),
            trim(100 - y.percent(value)),
            line.label,
            step,
            read(value),
        )
        for step, value in line.points
        if math.isfinite(value)
    )


def _legend(lines: Sequence[Line]) -> Markup:
    if len(lines) < 2:
        return Markup("")
    key = Markup('<span class="key {}">{}</span>')
    return Markup('<span class="legend">{}</span>').format(
        Markup("").join(key.format(line.style, line.label) for line in lines)
    )


def _spoken(title: str, lines: Sequence[Line], read: Callable[[float], str]) -> str:
    """The chart in words, for screen readers."""
    ends = [f"{line.label} from {read(line.points[0][1])} to {read(line.points[-1][1])}" for line in lines]
    return f"{title}: {'; '.join(ends)}"
