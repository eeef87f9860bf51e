"""Turns values into positions, and chooses the round numbers along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.wording import number

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TINY = 1e-290


@dataclass(frozen=True)
class Axis:
    """A range of values and its round numbers.

    Attributes:
        low: the value at 0 %.
        high: the value at 100 %, above `low`.
        ticks: the round numbers to write, inside the range.

    Examples:
        >>> axis = Axis.around(0.16, 0.71)
        >>> axis.ticks, axis.percent(0.4)
        ((0.0, 0.2, 0.4, 0.6, 0.8), 50.0)
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, low: float, high: float, *, whole: bool = False) -> Axis:
        """An axis that begins and ends at round numbers; it begins at 0 if `low` is less than half of `high`.

        Args:
            low: the smallest value.
            high: the largest value.
            whole: whether only integers count as round.
        """
        if whole:
            low, high = float(math.floor(low)), float(math.ceil(high))
        if 0 < low < high / 2:
            low = 0.0
        if high - low <= max(_TINY, 1e-9 * max(abs(low), abs(high))):  # all values are equal, up to rounding
            low, high = (0.0, high) if high > _TINY else (low - 1.0, low + 1.0)
        step = _step(high - low, whole)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        digits = 3 - math.floor(math.log10(step))
        ticks = tuple(round(index * step, digits) for index in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks)

    @classmethod
    def between(cls, low: float, high: float) -> Axis:
        """An axis of exactly this range, with round integers inside it; used for steps.

        Examples:
            >>> Axis.between(0, 24).ticks
            (0, 5, 10, 15, 20)
        """
        if low == high:
            high = low + 1
        step = _step(high - low, whole=True)
        first, last = math.ceil(low / step), math.floor(high / step)
        return cls(low, high, tuple(int(index * step) for index in range(first, last + 1)))

    def percent(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""
        return 100 * (value - self.low) / (self.high - self.low)


def _step(span: float, whole: bool) -> float:
    raw = span / 5.2
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in _STEPS if factor * power >= raw * (1 - 1e-9))
    return max(1.0, float(math.ceil(step - 1e-9))) if whole else step


def grid(axis: Axis) -> Markup:
    """Horizontal lines at the ticks, to put inside an svg element."""
    line = Markup('<line class="grid" x1="0" x2="100%" y1="{0}%" y2="{0}%"/>')
    return Markup("").join(line.format(trim(100 - axis.percent(tick))) for tick in axis.ticks)


def labels(axis: Axis, side: str, texts: Sequence[str] | None = None) -> Markup:
    """The numbers along an axis, as HTML to put beside the svg element.

    Args:
        axis: the axis.
        side: `left` or `bottom`.
        texts: what to write at the ticks; None = the ticks' numbers.
    """
    shown = texts or [number(tick) for tick in axis.ticks]
    name, edge = {"left": ("y", "top"), "bottom": ("x", "left")}[side]
    places = [axis.percent(tick) if side == "bottom" else 100 - axis.percent(tick) for tick in axis.ticks]
    tick = Markup('<span style="{}:{}%">{}</span>')
    body = Markup("").join(
        tick.format(edge, trim(place), text) for place, text in zip(places, shown, strict=True)
    )
    return Markup('<div class="{}" aria-hidden="true">{}</div>').format(name, body)


def trim(percent: float) -> str:
    """A percentage with at most two decimals, without zeros at the end.

    Examples:
        >>> trim(50.0), trim(33.3333)
        ('50', '33.33')
    """
    return f"{percent:.2f}".rstrip("0").rstrip(".")
