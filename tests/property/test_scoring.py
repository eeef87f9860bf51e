"""Matching, for any calls: what is accepted matches, and nothing depends on order."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kdfast.importers.bfcl_calls import ground_truth_calls
from kdfast.scoring import accepted_from_calls, count_right_calls, match_calls, score_calls

OF_TYPE = {
    str: st.text(min_size=1, max_size=6),
    int: st.integers(-9, 9),
    bool: st.booleans(),
    float: st.floats(-9, 9, allow_nan=False),
}
SCALARS = st.one_of(*OF_TYPE.values())
KINDS = {str: "string", int: "integer", bool: "boolean", float: "number"}
KEYS = st.text("abcdef", min_size=1, max_size=3)


def parameters_of(arguments):
    properties = {key: {"type": KINDS[type(value)]} for key, value in arguments.items()}
    return {"type": "object", "properties": properties, "required": sorted(arguments)}


CALLS = st.lists(
    st.tuples(st.sampled_from(["f", "g.h"]), st.dictionaries(KEYS, SCALARS, max_size=4)),
    min_size=1,
    max_size=4,
)


@given(CALLS, st.randoms(use_true_random=False))
def test_the_reference_matches_itself_in_any_order(calls, rng: random.Random):
    shuffled = rng.sample(calls, len(calls))
    assert match_calls(shuffled, accepted_from_calls(calls), []) is None


@given(CALLS, st.data())
def test_a_call_too_few_or_too_many_never_matches(calls, data):
    accepted = accepted_from_calls(calls)
    assert match_calls(calls[1:], accepted, []).reason == "count"
    extra = data.draw(st.sampled_from(calls))
    assert match_calls([*calls, extra], accepted, []).reason == "count"


@given(st.dictionaries(KEYS, SCALARS, min_size=1, max_size=4), st.data())
def test_more_accepted_values_never_turn_a_match_into_a_mismatch(arguments, data):
    tools = [{"name": "f", "parameters": parameters_of(arguments)}]
    accepted = accepted_from_calls([("f", arguments)])
    for key, value in arguments.items():
        others = data.draw(st.lists(OF_TYPE[type(value)], max_size=2))
        accepted[0]["f"][key] = [*others, *accepted[0]["f"][key]]
    assert match_calls([("f", arguments)], accepted, tools) is None


@given(st.dictionaries(KEYS, SCALARS, min_size=1, max_size=4), st.data())
def test_leaving_out_or_adding_an_argument_never_matches(arguments, data):
    tools = [{"name": "f", "parameters": parameters_of(arguments)}]
    accepted = accepted_from_calls([("f", arguments)])
    key = data.draw(st.sampled_from(sorted(arguments)))
    fewer = {name: value for name, value in arguments.items() if name != key}
    assert match_calls([("f", fewer)], accepted, tools).reason == "required"
    assert match_calls([("f", {**arguments, "zz": 1})], accepted, tools).reason == "unexpected"


@given(st.dictionaries(KEYS, st.lists(SCALARS, min_size=1, max_size=3), max_size=4))
def test_imported_calls_match_the_ground_truth_that_they_come_from(accepted):
    # One type per argument, as in BFCL.
    accepted = {
        key: [value for value in values if type(value) is type(values[0])] for key, values in accepted.items()
    }
    schema = parameters_of({key: values[0] for key, values in accepted.items()})
    (call,) = ground_truth_calls([{"f": accepted}], {"f": schema})
    assert (
        match_calls([("f", call["arguments"])], [{"f": accepted}], [{"name": "f", "parameters": schema}])
        is None
    )


@given(CALLS, CALLS, st.randoms(use_true_random=False))
def test_every_call_has_its_pair_exactly_where_the_whole_matches(made, due, rng: random.Random):
    made = rng.choice([made, rng.sample(due, len(due)), [*made, *due]])
    score = score_calls(made, all_valid=True, accepted=accepted_from_calls(due), tools=[], should_call=True)
    assert 0 <= score.calls_right <= min(score.calls_made, score.calls_due)
    assert score.exact_match == (score.calls_right == score.calls_made == score.calls_due)
    assert count_right_calls([*made, *due], accepted_from_calls(due), []) == len(due)
