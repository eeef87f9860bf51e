"""Two readers' calls are compared as JSON values."""

import pytest

from kdfast.export.parity.same_calls import same_calls


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([("f", '{"a": 1, "b": 2}')], [("f", '{"b":2.0,"a":1}')], True),
        ([("f", "{}")], [("g", "{}")], False),
        ([("f", "{}"), ("g", "{}")], [("g", "{}"), ("f", "{}")], False),
        ([("f", '{"a": "1"}')], [("f", '{"a": 1}')], False),
        ([("f", '{"a": false}')], [("f", '{"a": 0}')], False),
        ([("f", '{"a": "\\u00e9"}')], [("f", '{"a": "é"}')], True),
        ([("f", "{}")], [("f", "{")], False),
        ([], [], True),
    ],
)
def test_calls_are_equal_as_json_values(ours, theirs, same):
    assert same_calls(tuple(ours), tuple(theirs)) is same
