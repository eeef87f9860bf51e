"""Labels never overprint: the boxes of all texts of a chart, at the widths that a chart may have."""

from __future__ import annotations

import math
import re
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.page.charts import Line, Mark, histogram, line_chart
from kdfast.page.charts.axis import CHARACTER, NARROW, WIDE, Axis, tick_texts
from kdfast.page.wording import share

HEIGHT = {"line": 170, "histogram": 190}
"""The heights of plots in the style sheet, in pixels; labels are 12 pixels high."""
SPAN = re.compile(r'<span( class="more")? style="(top|left):([\d.]+)%">([^<]*)</span>')
COUNT = re.compile(
    r'<span class="count (\w+)" style="(top|bottom):([\d.]+)%"><small>([^<]*)</small>(\d+)</span>'
)
WORDS = ("never", "cut", "no call")
INFINITE = re.compile(r'<div class="x"><span>([^<]*)</span></div></div></div>')


class Box(NamedTuple):
    """A text and where it is, in pixels from the upper left corner of the plot."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def boxes(chart: str, kind: str, width: float) -> list[Box]:
    """The boxes of the axes' labels, and of those of the separate bar of a histogram."""
    height, found = HEIGHT[kind], []
    for more, edge, place, text in SPAN.findall(chart):
        wide, at = CHARACTER * len(text), float(place) / 100
        if edge == "top":
            found.append(Box(text, -8 - wide, at * height - 6, -8, at * height + 6))
        elif not more or width >= WIDE:
            found.append(Box(text, at * width - wide / 2, height + 8, at * width + wide / 2, height + 20))
    middle = width + 8 + 18 + 33  # the plot's margin, the bar's margin, half of the bar's width
    for text in INFINITE.findall(chart):
        half = CHARACTER * len(text) / 2
        found.append(Box(text, middle - half, height + 8, middle + half, height + 20))
    for _, edge, place, names, count in COUNT.findall(chart):
        tall = 18 + 15 * bool(names)
        top = float(place) / 100 * height if edge == "top" else height * (1 - float(place) / 100) - tall
        half = CHARACTER * max(len(names), len(count)) / 2
        found.append(Box(f"{names} {count}", middle - half, top, middle + half, top + tall))
    return found


def check(chart: str, kind: str) -> None:
    margin = re.search(r"--left:(\d+)px", chart)
    room = int(margin.group(1)) if margin else 46
    for width in (NARROW, WIDE - 1, WIDE, 1000):
        found = boxes(chart, kind, width)
        for one, other in combinations(found, 2):
            assert not one.overlaps(other), (width, one, other)
        assert min(box.left for box in found if box.right == -8) >= -room  # beside the plot is another chart
        assert min(box.top for box in found) >= -12  # above it are the title and the marks
        ends = [box.right for box in found if box.top == HEIGHT[kind] + 8 and box.text not in WORDS]
        assert max(ends) <= width + 30  # beside it is the next chart
    for name in ("top", "left"):
        texts = [text for _, edge, _, text in SPAN.findall(chart) if edge == name]
        assert texts
        assert len(set(texts)) == len(texts)  # two ticks with one text would say that nothing changed


VALUES = st.one_of(
    st.floats(-1e30, 1e30, allow_nan=False),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-12, 0.2401, 0.2402, 1e6, 1e6 + 1, 123_456_789.0, 1e250, -1e250]),
)
STEPS = st.one_of(st.integers(0, 2_000_000), st.sampled_from([0, 1, 999_990, 1_000_000, 1_000_010, 10**9]))


@given(st.lists(st.tuples(STEPS, VALUES), min_size=1, max_size=8), st.booleans())
def test_no_label_of_a_line_chart_touches_another(points: list[tuple[int, float]], named: bool) -> None:
    lines = [
        Line(label="one", points=sorted(points), style="held"),
        Line(
            label="other" * 20,
            points=[(step, value * (1 + 1e-9)) for step, value in sorted(points)],
            style="train",
        ),
    ]
    check(line_chart(lines, title="name_without_a_gap" * named * 9, legend=named), "line")


@pytest.mark.parametrize(
    ("points", "bottom", "left"),
    [
        ([(0, 0.0), (10**6, 1.0)], ["0", "200k", "400k", "600k", "800k", "1M"], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([(0, 0.2401), (8, 0.2403)], ["0", "2", "4", "6", "8"], ["0.2401", "0.24015", "0.2402", "0.24025", "0.2403"]),
        ([(5, 3e15), (5, 3e15)], ["5", "6"], ["0", "1e15", "2e15", "3e15"]),
    ],
)  # fmt: skip
def test_what_the_labels_say(points: list[tuple[int, float]], bottom: list[str], left: list[str]) -> None:
    chart = line_chart([Line(label="l", points=points, style="held")], title="t")
    found = [(edge, text) for _, edge, _, text in SPAN.findall(chart)]
    assert [text for edge, text in found if edge == "left"] == bottom
    assert [text for edge, text in found if edge == "top"] == left
    check(chart, "line")


def test_shares_are_labelled_in_percent() -> None:
    lines = [Line(label="l", points=[(0, 0.5), (9, 0.51)], style="held")]
    chart = line_chart(lines, title="t", read=share, bounds=(0.0, 1.0))
    check(chart, "line")
    assert ">20 %</span>" in chart


SAMPLES = st.lists(
    st.one_of(st.floats(0, 1e9), st.floats(400, 400.01), st.just(math.inf)), min_size=1, max_size=60
)


@given(SAMPLES, st.sampled_from(["ms", "tokens"]), st.sampled_from([0, 1, None]), st.booleans())
def test_no_label_of_a_histogram_touches_another(
    samples: list[float], unit: str, cut: int | None, marked: bool
) -> None:
    infinite = sum(map(math.isinf, samples))
    marks = [Mark("p50", math.inf, "p50"), Mark("p95", math.inf, "p95")] if marked and infinite else []
    chart = histogram(samples, marks, title="t", unit=unit, cut=cut and min(cut, infinite))
    check(chart, "histogram")
    assert bool(COUNT.search(chart)) == bool(infinite)


@given(st.floats(-1e15, 1e15), st.floats(-1e15, 1e15), st.booleans())
def test_ticks_are_told_apart_and_are_right(one: float, other: float, whole: bool) -> None:
    axis = Axis.around(*sorted((one, other)), whole=whole)
    texts = tick_texts(axis.ticks)
    assert len(set(texts)) == len(texts)
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    step = axis.ticks[1] - axis.ticks[0]
    for tick, text in zip(axis.ticks, texts, strict=True):
        number = float(text.rstrip("kMG").replace(",", "")) * units.get(text[-1], 1.0)
        assert number == pytest.approx(tick, abs=step / 500)
