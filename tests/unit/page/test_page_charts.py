"""Charts: positions against numbers worked out by hand, whatever the samples are."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st

from kdfast.page.charts import Estimate, Line, Mark, Part, histogram, interval, line_chart, smooth, stack
from kdfast.page.charts.axis import Axis
from kdfast.page.charts.line import thin

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False)
EVIL = "</title><script>alert(1)</script>\"'&"


def elements(markup: str, tag: str) -> list[dict[str, str]]:
    """Attributes of every element of a tag; the markup must be well-formed."""
    return Page(markup).all(tag)


def at(value: str) -> float:
    return float(value.removesuffix("%"))


# Axes


@given(NUMBERS, NUMBERS)
def test_an_axis_holds_its_values_between_round_ticks(one: float, other: float) -> None:
    low, high = sorted((one, other))
    axis = Axis.around(low, high)
    rounding = 1e-8 * max(abs(low), abs(high))
    assert axis.low <= low + rounding
    assert high <= axis.high + rounding
    assert 2 <= len(axis.ticks) <= 12
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert axis.percent(axis.low) == 0
    assert axis.percent(axis.high) == pytest.approx(100)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.16, 0.71, (0, 0.2, 0.4, 0.6, 0.8)),  # near 0: from 0
        (0.24, 0.3, (0.24, 0.26, 0.28, 0.3)),
        (1e-4, 1e-4, (0, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4)),  # all alike
        (0.0, 0.0, (-1, -0.5, 0, 0.5, 1)),
        (-2.0, -2.0, (-3, -2.5, -2, -1.5, -1)),
        (-1e30, -1e30, (-1.1e30, -1.05e30, -1e30, -9.5e29, -9e29)),
        (0.1999999999999999, 0.2, (0, 0.05, 0.1, 0.15, 0.2)),  # alike but for rounding
    ],
)
def test_ticks(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert Axis.around(low, high).ticks == pytest.approx(ticks)


def test_whole_numbers_only() -> None:
    assert Axis.around(0, 2, whole=True).ticks == (0, 1, 2)
    assert Axis.between(0, 3).ticks == (0, 1, 2, 3)
    assert Axis.between(7, 7).ticks == (7, 8)


# Lines


def test_a_line_is_where_its_values_are() -> None:
    chart = line_chart(
        [Line(label="loss", points=[(0, 0.8), (4, 0.4), (8, 0.0)], style="held", dots=True)], title="loss"
    )
    assert elements(chart, "path")[0]["d"] == "M0 0L500 500L1000 1000"
    places = [(at(dot["cx"]), at(dot["cy"])) for dot in elements(chart, "circle")]
    assert places == [(0, 0), (50, 50), (100, 100)]
    assert "loss at step 4: 0.4" in chart


def test_what_is_infinite_interrupts_a_line() -> None:
    points = [(0, math.inf), (1, 1.0), (2, 2.0), (3, math.inf), (4, 2.0)]
    chart = line_chart([Line(label="l", points=points, style="held", dots=True)], title="t", bounds=(0, 2))
    assert elements(chart, "path")[0]["d"] == "M250 500L500 0M1000 0"
    assert len(elements(chart, "circle")) == 3


def test_a_line_without_points_is_left_out() -> None:
    lines = [
        Line(label="there", points=[(0, 1.0), (1, 2.0)], style="train"),
        Line(label="empty", points=[], style="held"),
    ]
    chart = line_chart(lines, title="t")
    assert len(elements(chart, "path")) == 1
    assert "empty" not in chart


@given(st.lists(NUMBERS, min_size=1, max_size=300), st.integers(10, 50))
def test_a_thinned_line_keeps_its_ends_and_extremes(values: list[float], most: int) -> None:
    points = list(enumerate(values))
    kept = thin(points, most)
    assert len(kept) <= max(most + 4, len(points) if len(points) <= most else 0)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert set(kept) <= set(points)
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})
    for extreme in (min, max):
        assert extreme(value for _, value in kept) == extreme(values)


def test_smoothing_against_the_sum_written_out() -> None:
    values, window = [3.0, 1.0, 4.0, 1.0, 5.0], 4
    for index, (_, smoothed) in enumerate(smooth(list(enumerate(values)), window)):
        weights = [(1 - 1 / window) ** (index - earlier) for earlier in range(index + 1)]
        naive = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
        assert smoothed == pytest.approx(naive)


# Distributions


SAMPLES = st.lists(st.one_of(st.floats(0, 1e6), st.just(math.inf)), min_size=1, max_size=80)


@given(SAMPLES, st.sampled_from(["ms", "tokens"]))
def test_every_sample_is_in_one_bar(samples: list[float], unit: str) -> None:
    chart = histogram(samples, [], title="t", unit=unit)
    counts = [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+) samples?</title>", chart)]
    never = re.findall(r"never: (\d+) of (\d+)", chart)
    infinite = sum(map(math.isinf, samples))
    assert sum(counts) == len(samples) - infinite
    assert bool(never) == bool(infinite)
    assert all(pair == (str(infinite), str(len(samples))) for pair in never)
    for bar in elements(chart, "rect"):
        assert 0 <= at(bar["x"]) <= 100
        assert 0 <= at(bar["height"]) <= 100


def test_bars_are_as_high_as_their_counts() -> None:
    chart = histogram([1.0, 1.0, 1.0, 3.0], [], title="t", unit="tokens")
    heights = {float(bar["height"].removesuffix("%")) for bar in elements(chart, "rect")}
    assert heights == {100.0, 33.33}


def test_marks_at_their_values_and_those_that_never_came() -> None:
    marks = [Mark("p50", 2.0, "p50"), Mark("p95", math.inf, "p95")]
    chart = histogram([0.0, 2.0, 4.0, math.inf], marks, title="t", unit="tokens")
    lines = [line for line in elements(chart, "line") if line["class"].startswith("at ")]
    assert [(line["class"], at(line["x1"])) for line in lines] == [("at p50", 50.0)]
    assert "<small>p95</small>1</span>" in chart


@pytest.mark.parametrize(
    ("cut", "told", "word", "bars"),
    [
        (0, "never: 3 of 4 (75 %)", "never", [("bar bad", 100.0)]),
        (3, "cut: 3 of 4 (75 %)", "cut", [("bar cut", 100.0)]),
        (1, "never: 2 of 4 (50 %); cut: 1 of 4 (25 %)", "no call", [("bar bad", 66.67), ("bar cut", 33.33)]),
        (None, "no call: 3 of 4 (75 %)", "no call", [("bar bad", 100.0)]),  # an older report does not say
    ],
)
def test_what_was_cut_is_not_never(cut: int | None, told: str, word: str, bars: list[Any]) -> None:
    chart = histogram([2.0] + [math.inf] * 3, [], title="t", unit="tokens", cut=cut)
    assert f'title="{told}"' in chart
    assert f"<span>{word}</span>" in chart
    found = [(bar["class"], at(bar["height"])) for bar in elements(chart, "rect") if bar["class"] != "bar"]
    assert found == bars


# Shares


def test_an_interval_is_where_its_shares_are() -> None:
    drawn = interval(Estimate(value=0.25), Estimate(value=0.5, low=0.4, high=0.625, count=4, total=8))
    assert [(dot["class"], dot["cx"]) for dot in elements(drawn, "circle")] == [
        ("before", "25%"),
        ("after", "50%"),
    ]
    ranges = [line for line in elements(drawn, "line") if line["class"].startswith("range")]
    assert [(line["x1"], line["x2"]) for line in ranges] == [("40%", "62.5%")]
    assert "after 50 % (4 of 8)" in drawn
    assert "range" not in interval(None, Estimate(value=0.5))
    assert Estimate(value=0.5).interval == ""
    assert Estimate(value=1.0, low=1.0, high=1.0).interval == "100 to 100 %"  # it has one, if without width


def test_a_stack_is_divided_by_its_amounts() -> None:
    parts = [
        Part(label=label, amount=amount, style="good") for label, amount in (("a", 1), ("b", 0), ("c", 3))
    ]
    bar = stack(parts)
    assert re.findall(r"width:([\d.]+)%", bar) == ["25", "75"]
    assert stack([Part(label="a", amount=0, style="good")]).count("<span") == 0


def test_a_part_without_room_has_no_number() -> None:
    narrow = [Part(label=label, amount=amount, style="good") for label, amount in (("a", 900), ("b", 100))]
    bar = stack(narrow)  # 100 needs 3 digits; 10 % of the narrowest bar are 12 pixels
    assert ">900<" in bar
    assert ">100<" not in bar
    assert "b: 100 (10 %)" in bar


def test_texts_are_escaped() -> None:
    marks = [Mark(EVIL, 1.0, EVIL), Mark(EVIL, math.inf, "p95")]
    charts = [
        line_chart([Line(label=EVIL, points=[(0, 1.0)], style=EVIL, dots=True)], title=EVIL, note=EVIL),
        histogram([1.0, math.inf], marks, title=EVIL, unit=EVIL, note=EVIL),
        stack([Part(label=EVIL, amount=1, style=EVIL)]),
    ]
    for chart in charts:
        assert not elements(chart, "script")
