"""The section `quality`: each number by hand, and what the gates make of it."""

import json
import math

import pytest
from speed_reports import report

from kdfast.gates import evaluate_speed_gates
from kdfast.scoring import quality, score_calls


def score(made, due=()):
    """Of calls of `f` with these numbers, where calls with those are due."""
    return score_calls(
        [("f", {"n": number}) for number in made],
        all_valid=True,
        accepted=[{"f": {"n": [number]}} for number in due],
        tools=[],
        should_call=bool(due),
    )


SCORES = [
    score([1], [1]),  # right
    score([2], [1]),  # wrong
    score([], [1]),  # missed
    score([1, 2, 2], [1, 2]),  # both right, one too many
    score([2], [1, 2]),  # one right, one missed
    score([]),  # right: nothing due
    score([1, 1]),  # two calls where none is due
]
PER_PROMPT = [[1, 0, 0], [0, 1, 1], [0, 0, 1], [2, 1, 0], [1, 0, 1], [0, 0, 0], [0, 2, 0]]


def test_each_number_by_hand():
    section = quality(SCORES)
    assert section["f1"]["per_prompt"] == PER_PROMPT
    assert section["precision"]["value"] == pytest.approx(4 / 8)
    assert section["recall"]["value"] == pytest.approx(4 / 7)
    assert section["f1"]["value"] == pytest.approx(2 * 4 / (2 * 4 + 4 + 3))
    assert section["false_call_rate"]["value"] == 0.5
    assert section["false_call_rate"]["per_prompt"] == [0, 1]
    assert section["missed_call_rate"]["value"] == pytest.approx(1 / 5)
    assert "absent" not in section
    for found in section.values():
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert section["f1"]["low"] < section["f1"]["high"]


def test_f1_is_the_harmonic_mean():
    section = quality(SCORES)
    precision, recall = section["precision"]["value"], section["recall"]["value"]
    assert section["f1"]["value"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_it_is_json_and_the_same_again():
    assert quality(SCORES) == quality(list(SCORES))
    assert json.loads(json.dumps(quality(SCORES), allow_nan=False)) == quality(SCORES)
    assert quality(SCORES, seed=1)["f1"]["value"] == quality(SCORES)["f1"]["value"]


def test_what_cannot_be_formed_is_absent_with_its_reason():
    no_call_due = quality([score([]), score([1])])
    assert set(no_call_due) == {"false_call_rate", "attempted_call_rate", "absent"}
    assert no_call_due["absent"] == dict.fromkeys(
        ("f1", "precision", "recall", "missed_call_rate"), "no prompt needs a call"
    )
    all_due = quality([score([1], [1])])
    assert all_due["f1"]["value"] == 1.0
    assert all_due["absent"] == {"false_call_rate": "every prompt needs a call"}
    silent = quality([score([], [1]), score([], [2])])
    assert silent["f1"]["value"] == silent["recall"]["value"] == 0.0
    assert silent["absent"]["precision"] == "no call was made"
    assert silent["missed_call_rate"]["value"] == 1.0
    nothing = quality([])
    assert set(nothing["absent"]) == {"f1", "precision", "recall", "false_call_rate", "missed_call_rate"}
    assert set(nothing) == {"absent"}


def gates_of(current, blessed):
    sides = [
        report(f1=quality(side)["f1"], false_call_rate=quality(side)["false_call_rate"])
        for side in (current, blessed)
    ]
    return {result.name: result for result in evaluate_speed_gates(*sides).results}


def test_the_gates_read_it():
    good = [score([1], [1])] * 60 + [score([])] * 20
    worse = [score([2], [1])] * 15 + [score([1], [1])] * 45 + [score([1])] * 8 + [score([])] * 12
    same = gates_of(good, good)
    assert same["f1"].status == same["false_call_rate"].status == "passed"
    failed = gates_of(worse, good)
    assert failed["f1"].status == failed["false_call_rate"].status == "failed"
    assert "with 95 % confidence by at least" in failed["f1"].reason
    assert math.isclose(failed["f1"].value, quality(worse)["f1"]["value"])
