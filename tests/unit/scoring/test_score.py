"""Matching by BFCL's rules, scores and shares; every expected verdict follows from the rules by hand."""

import pytest

from kdfast.scoring import (
    Score,
    Share,
    accepted_from_calls,
    count_right_calls,
    match_calls,
    score_answer,
    score_calls,
    summarise,
)


def tool(properties, required=(), name="f"):
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TEXT, WHOLE, REAL, FLAG = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
TEXTS = {"type": "array", "items": TEXT}
REALS = {"type": "array", "items": REAL}
OBJECT = {"type": "object"}
OBJECTS = {"type": "array", "items": OBJECT}


def reason(value, accepted, schema):
    mismatch = match_calls([("f", {"a": value})], [{"f": {"a": accepted}}], [tool({"a": schema})])
    return mismatch and mismatch.reason


@pytest.mark.parametrize(
    ("value", "accepted", "schema", "expected"),
    [
        # Text: case, spaces and ,./-_*^ do not matter, other signs do; ' equals ".
        ("new york", ["New York"], TEXT, None),
        ("April 1, 2024", ["april 1 2024"], TEXT, None),
        ("a-b_c*d^e/f.g", ["abcdefg"], TEXT, None),
        ("it's", ['it"s'], TEXT, None),
        ("rock!", ["rock"], TEXT, "value"),
        ("", ["", "x"], TEXT, None),
        ("5", [5], TEXT, "value"),
        # Numbers and flags.
        (5, [5, 6], WHOLE, None),
        (7, [5, 6], WHOLE, "value"),
        (5.0, [5], WHOLE, "type"),
        (True, [1], WHOLE, "type"),
        (5, [5.0], REAL, None),
        (5, [5], REAL, None),
        (5.5, [5.5, ""], REAL, None),
        ("5.5", [5.5], REAL, "type"),
        (True, [True], FLAG, None),
        (1, [True], FLAG, "type"),
        # A variable: the accepted value is of another type than the tool asks for; compared as it is.
        ("myVariable", ["myVariable"], WHOLE, None),
        ("MyVariable", ["myVariable"], WHOLE, "value"),
        (3, ["myVariable"], WHOLE, "value"),
        # Any type: text rules for text, else the accepted value's own type.
        ("X y", ["xy"], {}, None),
        (3, [3], {}, None),
        ([1], [3], {}, "type"),
        # Lists: order matters, text items loosely, item types by the accepted list.
        (["A", "b c"], [["a", "B-C"]], TEXTS, None),
        (["b", "a"], [["a", "b"]], TEXTS, "value"),
        (["b", "a"], [["a", "b"], ["b", "a"]], TEXTS, None),
        ([1, 2], [["a", "b"]], TEXTS, "type"),
        ([1.5, 2.5], [[1.5, 2.5]], REALS, None),
        ([1, 2], [[1, 2]], REALS, None),
        ([1, 2.0], [[1.0, 2.0]], REALS, "type"),
        ([], ["", ["a"]], TEXTS, None),
        ("a", [["a"]], TEXTS, "type"),
        ([1, "x", True], [[1, "X", True]], {"type": "array", "items": {}}, None),
        # Objects: accepted values per key, one level deep; an accepted "" makes the key optional.
        ({"x": 1, "y": "B"}, [{"x": [1, 2], "y": ["b"]}], OBJECT, None),
        ({"x": 1}, [{"x": [1], "y": ["b"]}], OBJECT, "value"),
        ({"x": 1}, [{"x": [1], "y": ["b", ""]}], OBJECT, None),
        ({"x": 1, "z": 0}, [{"x": [1]}], OBJECT, "value"),
        ({"x": 3}, [{"x": [1]}, "", {"x": [3]}], OBJECT, None),
        ({"x": {"y": 1}}, [{"x": [{"y": 1}]}], OBJECT, None),
        ([{"x": 1}, {"x": 2}], [[{"x": [1]}, {"x": [2]}]], OBJECTS, None),
        ([{"x": 2}, {"x": 1}], [[{"x": [1]}, {"x": [2]}]], OBJECTS, "value"),
        ([{"x": 1}], [[{"x": [1]}, {"x": [2]}]], OBJECTS, "value"),
    ],
)
def test_one_argument(value, accepted, schema, expected):
    assert reason(value, accepted, schema) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"a": 1}, None),
        ({"a": 1, "b": 2}, None),
        ({"b": 2, "a": 1}, None),
        ({}, "required"),
        ({"b": 2}, "required"),
        ({"a": 1, "z": 0}, "unexpected"),
        ({"a": 1, "c": 3}, "unexpected"),
        ([1], "type"),
    ],
)
def test_which_arguments_are_given(arguments, expected):
    tools = [tool({"a": WHOLE, "b": WHOLE, "c": WHOLE}, ["a"])]
    mismatch = match_calls([("f", arguments)], [{"f": {"a": [1], "b": [2, ""]}}], tools)
    assert (mismatch and mismatch.reason) == expected


def test_an_argument_that_is_accepted_with_a_value_only_must_be_given_even_if_the_schema_does_not_say_so():
    tools = [tool({"a": WHOLE})]
    mismatch = match_calls([("f", {})], [{"f": {"a": [1]}}], tools)
    assert mismatch is not None
    assert (mismatch.reason, mismatch.detail) == ("missing", "a is not given and not optional")


def test_parallel_calls_match_in_any_order_and_each_once():
    tools = [tool({"a": WHOLE}), tool({"a": WHOLE}, name="g")]
    accepted = [{"f": {"a": [1]}}, {"f": {"a": [2]}}, {"g": {"a": [1]}}]
    one, two, other = ("f", {"a": 1}), ("f", {"a": 2}), ("g", {"a": 1})
    assert match_calls([other, two, one], accepted, tools) is None
    assert match_calls([one, two], accepted, tools).reason == "count"
    assert match_calls([one, one, other], accepted, tools).reason == "value"
    assert match_calls([one, two, two], accepted, tools).detail == "f instead of g"


def test_right_calls_are_counted_also_where_the_whole_does_not_match():
    tools = [tool({"a": WHOLE}), tool({"a": WHOLE}, name="g")]
    accepted = [{"f": {"a": [1]}}, {"f": {"a": [2]}}, {"g": {"a": [1]}}]
    one, two, other = ("f", {"a": 1}), ("f", {"a": 2}), ("g", {"a": 1})

    def right(*calls):
        return count_right_calls(calls, accepted, tools)

    assert right(other, two, one) == 3
    assert right() == 0
    assert right(two) == 1
    assert right(one, one, one) == 1  # each counts once
    assert right(("f", {"a": 9}), other, two, ("h", {})) == 2
    assert count_right_calls([one], [], tools) == 0


def test_tools_may_come_plain_and_without_any_the_accepted_types_decide():
    accepted = [{"f": {"a": ["New York"]}}]
    assert match_calls([("f", {"a": "new york"})], accepted, [tool({"a": TEXT})["function"]]) is None
    assert match_calls([("f", {"a": "new york"})], accepted, []) is None
    assert match_calls([("f", {"a": 3})], accepted, []).reason == "type"


def test_reference_calls_accept_themselves():
    calls = [("f", {"n": 3, "o": {"x": 1, "y": [1, 2]}, "l": [{"x": "s"}], "t": ["a"]}), ("g", {})]
    accepted = accepted_from_calls(calls)
    assert accepted[0]["f"]["o"] == [{"x": [1], "y": [[1, 2]]}]
    tools = [tool({"n": WHOLE, "o": OBJECT, "l": OBJECTS, "t": TEXTS}), tool({}, name="g")]
    assert match_calls(calls, accepted, tools) is None
    assert match_calls(calls, accepted, []) is None


def score(calls, *, should_call=True, all_valid=True, accepted=({"f": {"a": [1]}},)):
    return score_calls(
        calls, all_valid=all_valid, accepted=accepted, tools=[tool({"a": WHOLE})], should_call=should_call
    )


def test_scores():
    right = score([("f", {"a": 1})])
    assert (right.parsed, right.right_function, right.schema_valid, right.exact_match) == (True,) * 4
    assert (right.false_call, right.missed_call, right.mismatch) == (False, False, None)

    wrong_value = score([("f", {"a": 2})])
    assert (wrong_value.right_function, wrong_value.schema_valid, wrong_value.exact_match) == (
        True,
        True,
        False,
    )
    assert wrong_value.mismatch.reason == "value"

    wrong_function = score([("g", {"a": 1})], all_valid=False)
    assert (wrong_function.parsed, wrong_function.right_function, wrong_function.schema_valid) == (
        True,
        False,
        False,
    )

    twice = score([("f", {"a": 1})] * 2)
    assert (twice.right_function, twice.exact_match) == (False, False)

    silent = score([])
    assert (silent.parsed, silent.schema_valid, silent.missed_call, silent.false_call) == (
        False,
        False,
        True,
        False,
    )

    needless = score([("f", {"a": 1})], should_call=False, accepted=())
    assert (needless.false_call, needless.missed_call, needless.right_function) == (True, False, False)
    assert needless.exact_match is False
    assert needless.to_json()["false_call"] is True

    assert score([], should_call=False, accepted=()).false_call is False
    # A prompt that asks for a call but has no truth is never matched, above all not by saying nothing.
    for made in ([], [("f", {"a": 1})]):
        unknown = score(made, accepted=())
        assert (unknown.exact_match, unknown.right_function, unknown.missed_call) == (False, False, not made)
        assert unknown.mismatch.reason == "no_truth"


def test_calls_in_formats_that_do_not_count():
    call = '{"name": "f", "arguments": {"a": 1}}'
    due = {"accepted": [{"f": {"a": [1]}}], "reference_text": "", "should_call": True}
    bare = score_answer(call, [], **due)
    assert (bare.parsed, bare.calls_not_counted) == (False, 1)
    tagged = score_answer(f"<tool_call>{call}</tool_call> {call}", [], **due)
    assert (tagged.exact_match, tagged.calls_made, tagged.calls_not_counted) == (True, 1, 1)
    both = score_answer(f"<tool_call>{call}</tool_call> {call}", [], **due, formats=["hermes", "object"])
    assert (both.exact_match, both.calls_made, both.calls_not_counted) == (False, 2, 0)
    # the right answer is read in the same formats
    known = {"accepted": None, "reference_text": call, "should_call": True}
    assert score_answer(call, [], **known).mismatch.reason == "no_truth"
    assert score_answer(call, [], **known, formats=["object"]).exact_match


def calls(made):
    return made.calls_right, made.calls_made, made.calls_due


def test_calls_are_counted():
    assert calls(score([("f", {"a": 1})])) == (1, 1, 1)
    assert calls(score([("f", {"a": 1})] * 2)) == (1, 2, 1)
    assert calls(score([("g", {})])) == (0, 1, 1)
    assert calls(score([])) == (0, 0, 1)
    assert calls(score([("f", {"a": 1})], accepted=({"f": {"a": [1]}}, {"f": {"a": [2]}}))) == (1, 1, 2)
    # none is due: whatever is made is wrong, and nothing is missing
    assert calls(score([("f", {"a": 1})], should_call=False, accepted=())) == (0, 1, 0)
    assert calls(score([], should_call=False, accepted=())) == (0, 0, 0)
    # one is due and the right one is not known: it cannot be got right
    assert calls(score([], accepted=())) == (0, 0, 1)
    assert calls(score([("f", {"a": 1})], accepted=())) == (0, 1, 1)


def test_shares_are_over_the_right_prompts():
    scores = [
        score([("f", {"a": 1})]),
        score([("f", {"a": 2})]),
        score([("g", {})], all_valid=False),
        score([]),
        score([("f", {"a": 1})], should_call=False, accepted=()),
        score([], should_call=False, accepted=()),
    ]
    table = summarise(scores)
    assert {name: (share.count, share.total) for name, share in table.items()} == {
        "parsed": (3, 4),
        "right_function": (2, 4),
        "schema_valid": (2, 4),
        "exact_match": (1, 4),
        "missed_calls": (1, 4),
        "broken_calls": (0, 4),
        "unclosed": (0, 4),
        "false_calls": (1, 2),
        "attempted_calls": (0, 2),
    }
    assert str(table["parsed"]) == "3 of 4 (75 %)"
    assert table["false_calls"].fraction == 0.5
    low, high = table["parsed"].interval
    assert table["parsed"].to_json() == {"count": 3, "total": 4, "fraction": 0.75, "low": low, "high": high}
    assert 0 <= low < 0.75 < high <= 1


def test_a_share_of_nothing_is_no_number():
    share = summarise([])["parsed"]
    assert share == Share(count=0, total=0)
    assert share.fraction is share.interval is None
    assert share.to_json() == {"count": 0, "total": 0, "fraction": None, "low": None, "high": None}
    assert isinstance(score([]), Score)
