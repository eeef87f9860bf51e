"""Paired differences: known gaps, a naive bootstrap over records, and what is never claimed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.recipes.train.qat.answers import AnswerSums
from kdfast.recipes.train.qat.difference import MIN_RECORDS, difference, differences, sentences


def sums(kl: list[float], positions: list[int], *, compared: bool = True) -> AnswerSums:
    made = AnswerSums(len(kl), compared)
    made.sums["kl"][:] = kl
    made.sums["positions"][:] = positions
    return made


def naive(own: list[float], other: list[float], positions: list[int]) -> tuple[float, float]:
    """The middle 95 % of 4000 means over records that are drawn again, one after the other."""
    rng, drawn = random.Random(1), []
    for _ in range(4000):
        chosen = [rng.randrange(len(own)) for _ in own]
        drawn.append(sum(own[i] - other[i] for i in chosen) / sum(positions[i] for i in chosen))
    drawn.sort()
    return drawn[100], drawn[3899]


def test_the_interval_is_that_of_a_slow_bootstrap_over_records() -> None:
    rng = random.Random(0)
    positions = [rng.randint(3, 20) for _ in range(40)]
    other = [count * rng.uniform(0.02, 0.08) for count in positions]
    own = [value * rng.uniform(0.5, 1.2) for value in other]
    found = difference(sums(own, positions), sums(other, positions), "kl")
    assert found is not None
    low, high = naive(own, other, positions)
    assert found["value"] == pytest.approx((sum(own) - sum(other)) / sum(positions))
    assert (found["low"], found["high"]) == (pytest.approx(low, rel=0.1), pytest.approx(high, rel=0.1))
    assert (found["says"], found["records"]) == ("lower", 40)


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_equal_arms_never_differ(rows: list[tuple[float, int]]) -> None:
    kl, positions = [value if count else 0.0 for value, count in rows], [count for _, count in rows]
    found = difference(sums(kl, positions), sums(kl, positions), "kl")
    known = sum(count > 0 for count in positions)
    if not known:
        assert found is None
    else:
        assert found == {
            "value": 0.0,
            "low": 0.0,
            "high": 0.0,
            "records": known,
            "says": "not_shown" if known >= MIN_RECORDS else "too_few",
        }


@given(st.integers(1, 12), st.floats(0.01, 1))
def test_the_other_way_round_says_the_opposite(records: int, gap: float) -> None:
    low, high = sums([1.0] * records, [4] * records), sums([1.0 + gap] * records, [4] * records)
    ways = [difference(low, high, "kl"), difference(high, low, "kl")]
    says = [one and one["says"] for one in ways]
    assert says == (["lower", "higher"] if records >= MIN_RECORDS else ["too_few", "too_few"])


def test_no_number_no_difference() -> None:
    good, counts = sums([1.0] * 8, [2] * 8), [2] * 8
    assert difference(good, sums([float("nan")] * 8, counts), "kl") is None
    assert difference(good, sums([float("inf"), *[1.0] * 7], counts), "kl") is None
    assert difference(good, sums([1.0] * 8, counts, compared=False), "kl") is None
    assert difference(good, good, "nll_args") is None  # no row has a call


def test_only_qat_is_compared_with_others() -> None:
    one = sums([1.0] * 8, [2] * 8)
    assert differences({"start, post-training": one, "float, post-training": one}) == []
    found = differences({"start, post-training": one, "qat": one, "float, post-training": one})
    assert [pair["against"] for pair in found] == ["start, post-training", "float, post-training"]
    assert all(pair.keys() == {"against", "kl"} for pair in found)


def test_a_sentence_for_each_measure() -> None:
    arms = [
        {"name": "p", "title": "after training", "kl": 0.5, "nll_args": 0.25},
        {"name": "qat", "title": "QAT", "kl": 0.75, "nll_args": 0.25},
    ]
    kl = {"value": 0.25, "low": 0.125, "high": 0.375, "records": 7, "says": "higher"}
    few = {"value": 0.0, "low": -0.5, "high": 0.5, "records": 3, "says": "too_few"}
    assert sentences(arms, [{"against": "p", "kl": kl, "nll_args": few}]) == [
        "KL to the float student: QAT 0.75 against 0.5 (after training), +0.25 [+0.12, +0.38]: QAT is further from it",
        "NLL of arguments: QAT 0.25 against 0.25 (after training), +0 [-0.5, +0.5]: too few records to judge (3, at "
        "least 6)",
    ]
