"""Turns values into positions, and chooses the round numbers along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

NARROW, WIDE = 120, 260
"""The narrowest plot (a histogram on a telephone), and from which width on all labels are shown, in CSS pixels."""
CHARACTER = 7.6
"""The width of a digit at the labels' size of 12 pixels in a wide font; a comma or a point is narrower."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TINY, _HUGE = 1e-290, 1e300
_GAP = 6
_OVERHANG = 26
"""How far a label may reach beyond the right end of a plot: there the next chart, or the bar of no call, begins."""
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


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

        It ends at 1e300 at the latest, so that every number about it is finite.

        Args:
            low: the smallest value.
            high: the largest value.
            whole: whether only integers count as round.
        """
        low, high = max(low, -_HUGE), min(high, _HUGE)
        if whole:
            low, high = float(math.floor(low)), float(math.ceil(high))
        if 0 < low < high / 2:
            low = 0.0
        if high - low <= max(_TINY, 1e-9 * max(abs(low), abs(high))):  # all values are equal, up to rounding
            around = max(1.0, abs(low) / 10)
            low, high = (0.0, high) if high > _TINY else (low - around, low + around)
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

    In a plot below `WIDE` pixels, the style sheet hides the labels of class `more`. The others need no more than
    `NARROW` pixels. Labels that would overlap even at `WIDE` pixels, or reach far out of the plot, are left out.

    Args:
        axis: the axis.
        side: `left` or `bottom`.
        texts: what to write at the ticks; None = the ticks' numbers.
    """
    shown = list(zip(axis.ticks, texts or tick_texts(axis.ticks), strict=True))
    if side == "left":
        return _written("y", [(100 - axis.percent(tick), text, False) for tick, text in shown])
    places = [(axis.percent(tick), text) for tick, text in shown]
    places = [place for place in places if _box(place, NARROW)[1] <= NARROW + _OVERHANG]
    places = places[:: _stride(places, WIDE)]
    always = _stride(places, NARROW)
    return _written("x", [(*place, index % always > 0) for index, place in enumerate(places)])


def _written(name: str, places: Sequence[tuple[float, str, bool]]) -> Markup:
    """Labels as (percent, text, whether only a wide plot shows it)."""
    edge = "top" if name == "y" else "left"
    body = Markup("").join(
        Markup('<span{} style="{}:{}%">{}</span>').format(
            Markup(' class="more"') if more else "", edge, trim(place), text
        )
        for place, text, more in places
    )
    return Markup('<div class="{}" aria-hidden="true">{}</div>').format(name, body)


def left_margin(texts: Sequence[str]) -> Markup:
    """The style attribute that leaves room for the labels of a y axis; empty if the style sheet's room is enough."""
    needed = math.ceil(CHARACTER * max(map(len, texts))) + 9
    return Markup(' style="--left:{}px"').format(needed) if needed > 46 else Markup("")


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Ticks as short texts, with as many digits as it takes to tell them apart.

    Examples:
        >>> tick_texts([0, 500_000, 1_000_000]), tick_texts([0.2401, 0.24015, 0.2402])
        (['0', '500k', '1M'], ['0.2401', '0.24015', '0.2402'])
        >>> tick_texts([0.0, 2e-5, 4e-5]), tick_texts([999_995, 1_000_000])
        (['0', '2e-5', '4e-5'], ['999.995k', '1M'])
    """
    largest, step = max(map(abs, ticks)), min((b - a for a, b in pairwise(ticks)), default=1.0)
    return [_tick_text(float(tick), float(step), float(largest)) for tick in ticks]


def _tick_text(tick: float, step: float, largest: float) -> str:
    if tick == 0:
        return "0"
    if not 1e-3 <= largest < 1e12:
        power = math.floor(math.log10(abs(tick)))
        return f"{_shortest(tick / 10.0**power, step / 10.0**power)}e{power}"
    large = [(unit, name) for unit, name in _UNITS if abs(tick) >= unit] if largest >= 1e4 else []
    unit, name = large[0] if large else (1.0, "")
    return f"{_shortest(tick / unit, step / unit)}{name}"


def _shortest(value: float, step: float) -> str:
    """The value with the fewest decimals that are right to a thousandth of a step."""
    texts = (f"{value:,.{digits}f}" for digits in range(16))
    return next(
        (text for text in texts if abs(float(text.replace(",", "")) - value) <= step / 1000), f"{value}"
    )


def _stride(places: Sequence[tuple[float, str]], width: float) -> int:
    """The smallest n such that every n-th label leaves a gap to the next one."""
    boxes = [_box(place, width) for place in places]
    for stride in range(1, len(boxes)):
        if all(right + _GAP <= left for (_, right), (left, _) in pairwise(boxes[::stride])):
            return stride
    return max(1, len(boxes))


def _box(place: tuple[float, str], width: float) -> tuple[float, float]:
    """The left and right end of a label (percent, text) that is centred at its place."""
    middle, half = place[0] / 100 * width, CHARACTER * len(place[1]) / 2
    return middle - half, middle + half


def trim(percent: float) -> str:
    """A percentage with at most two decimals, without zeros at the end.

    Examples:
        >>> trim(50.0), trim(33.3333)
        ('50', '33.33')
    """
    return f"{percent:.2f}".rstrip("0").rstrip(".")
