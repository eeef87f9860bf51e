"""Calls as a server writes them become calls as a record holds them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.teacher.api.reply_calls import ReplyError, read_calls

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(st.text(max_size=3), values, max_size=3)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), arguments, st.booleans()), max_size=4))
def test_object_or_text_gives_the_same(calls: list[tuple[str, dict[str, Any], bool]]) -> None:
    written = [
        {"id": str(place), "function": {"name": name, "arguments": json.dumps(given) if as_text else given}}
        for place, (name, given, as_text) in enumerate(calls)
    ]
    assert read_calls({"tool_calls": written}) == [
        {"type": "function", "function": {"name": name, "arguments": given}} for name, given, _ in calls
    ]


@pytest.mark.parametrize("message", [{}, {"tool_calls": None}, {"tool_calls": []}, {"function_call": None}])
def test_no_calls(message: dict[str, Any]) -> None:
    assert read_calls(message) == []


def test_a_message_says_where_and_what() -> None:
    right = {"function": {"name": "f", "arguments": "{}"}}
    wrong = {"function": {"name": "g", "arguments": '{"a": {"b": 1, "b": 2}}'}}
    with pytest.raises(ReplyError) as raised:
        read_calls({"tool_calls": [right, wrong]})
    assert raised.value.reason == "broken_arguments"
    assert str(raised.value) == "tool_calls[1] (g).arguments: no JSON (the key is there twice: 'b')"
