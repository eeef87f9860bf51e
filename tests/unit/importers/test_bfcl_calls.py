"""Calls from BFCL's ground truth, and refusals."""

import pytest

from kdfast.errors import DataError
from kdfast.importers.bfcl_calls import BrokenTruthError, ground_truth_calls, refusal
from kdfast.importers.bfcl_schema import json_schema


def call_of(accepted, properties, required=()):
    schema = json_schema({"type": "dict", "properties": properties, "required": list(required)})
    ((call),) = ground_truth_calls([{"f": accepted}], {"f": schema})
    return call["arguments"]


def test_first_non_empty_accepted_value_and_optional_ones_left_out():
    properties = {name: {"type": "integer"} for name in "abc"}
    assert call_of({"a": [1, 2], "b": ["", 5], "c": [7, ""]}, properties, ["a", "c"]) == {"a": 1, "c": 7}


def test_a_required_text_that_may_only_be_empty_is_given_as_empty():
    assert call_of({"a": [""]}, {"a": {"type": "string"}}, ["a"]) == {"a": ""}


def test_a_value_that_the_schema_forbids_gives_way_to_the_next():
    assert call_of({"a": ["variable", 4]}, {"a": {"type": "integer"}}) == {"a": 4}


def test_objects_in_arguments_are_resolved_one_level_deep():
    properties = {
        "o": {"type": "dict"},
        "l": {"type": "array", "items": {"type": "dict"}},
        "p": {"type": "dict"},
    }
    accepted = {
        "o": [{"x": [3, 4], "y": ["", 1], "z": [["s", "t"]]}],
        "l": [[{"x": ["u"]}, {"x": ["v", "w"]}]],
        "p": [{"at": [{"lat": 10.5}], "plain": "text"}],
    }
    assert call_of(accepted, properties) == {
        "o": {"x": 3, "z": ["s", "t"]},
        "l": [{"x": "u"}, {"x": "v"}],
        "p": {"at": {"lat": 10.5}, "plain": "text"},
    }


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ({"g": {}}, "not among the tools"),
        ({"f": {"a": [1], "zz": [2]}}, "does not define"),
        ({"f": {"a": ["myVariable"]}}, "no accepted value"),
        ({"f": {"a": []}}, "without any accepted value"),
        ({"f": {}}, "no accepted value"),
    ],
)
def test_ground_truths_that_their_tools_rule_out(truth, reason):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with pytest.raises(BrokenTruthError, match=reason):
        ground_truth_calls([truth], {"f": schema})


def test_refusals_name_the_tools_and_do_not_depend_on_order():
    texts = {refusal(f"q{i}", ["a.b", "c", "d", "e", "f"], seed=1) for i in range(50)}
    assert 2 <= len(texts) <= 4
    assert all("a.b, c, d and 2 more" in text for text in texts)
    assert refusal("q7", ["a"], seed=1) == refusal("q7", ["a"], seed=1)
    with pytest.raises(DataError, match="at least one tool"):
        refusal("q", [], seed=1)
