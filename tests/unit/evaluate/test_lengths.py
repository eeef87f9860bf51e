"""Lengths of answers against those of the right ones."""

import pytest

from kdfast.evaluate.lengths import length_summary


def test_ratios_are_over_prompts_with_a_reference():
    found = length_summary([30, 60, 10, 5, 7], [30, 40, None, 10, 0])
    assert (found["tokens"]["count"], found["ratio"]["count"]) == (5, 3)
    assert found["tokens"]["p50"]["value"] == 10
    assert found["ratio"]["p50"]["value"] == 1.0
    assert found["ratio"]["p95"]["value"] == 1.5


def test_intervals_hold_the_value():
    found = length_summary(list(range(20, 60)), [30] * 40)["ratio"]
    for level in ("p50", "p95"):
        assert found[level]["low"] <= found[level]["value"] <= found[level]["high"]
    assert found["p50"]["low"] < found["p50"]["high"]


def test_nothing_is_no_number():
    assert length_summary([], []) == {"tokens": {"count": 0}, "ratio": {"count": 0}}
    with pytest.raises(ValueError, match="zip"):
        length_summary([1], [])
