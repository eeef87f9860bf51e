"""Every name is taken by every API, no two become one, and all come back."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.errors import DataError
from kdfast.teacher.api.tool_names import ToolNames, _free_name

TAKEN_BY_EVERY_API = re.compile(r"[A-Za-z0-9_-]{1,64}")

# Few characters, so that names collide once they are cut and replaced.
names = st.one_of(
    st.text("ab._ é", min_size=1, max_size=4),
    st.text(min_size=1, max_size=8),
    st.builds(lambda end: "x" * 70 + end, st.text("ab.", max_size=2)),
)


@given(st.lists(names, max_size=20))
def test_round_trip_without_collision(own: list[str]) -> None:
    mapped = ToolNames(own)
    sent = {name: mapped.sent(name) for name in own}
    assert len(set(sent.values())) == len(set(own))
    for name, other in sent.items():
        assert TAKEN_BY_EVERY_API.fullmatch(other)
        assert mapped.own(other) == name
        if TAKEN_BY_EVERY_API.fullmatch(name):
            assert other == name


@given(st.lists(names, max_size=10), st.randoms())
def test_the_order_of_the_names_changes_nothing(own: list[str], random: Any) -> None:
    shuffled = list(own)
    random.shuffle(shuffled)
    assert all(ToolNames(own).sent(name) == ToolNames(shuffled).sent(name) for name in own)


@given(st.lists(names, min_size=1, max_size=5))
def test_a_tool_that_has_the_name_that_another_would_get(own: list[str]) -> None:
    squatters = [ToolNames(own).sent(name) for name in own]
    squatters += [_free_name(name, set(squatters)) for name in own]
    mapped = ToolNames(own + squatters)
    assert all(mapped.own(mapped.sent(name)) == name for name in own + squatters)
    assert all(mapped.sent(name) == name for name in squatters)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"properties": {"name": {}}}}}


def request(name: str) -> dict[str, Any]:
    return {
        "model": "a.b",
        "tools": [tool(name)],
        "tool_choice": {"type": "function", "function": {"name": name}},
        "messages": [
            {"role": "user", "name": "Ann B.", "content": name},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": name, "arguments": '{"name": "x.y"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "1", "name": name, "content": "3"},
            {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": "{}"}},
            {"role": "function", "name": name, "content": "3"},
        ],
    }


def test_every_place_of_a_request_and_nothing_else() -> None:
    given_request = request("math.sum")
    before = copy.deepcopy(given_request)
    mapped = ToolNames.of_request(given_request)
    sent = mapped.sent("math.sum")
    expected = request(sent)
    expected["messages"][0] = before["messages"][0]
    assert mapped.to_request(given_request) == expected
    assert given_request == before


def test_legacy_functions_flat_tools_and_allowed_tools() -> None:
    given_request = {
        "functions": [{"name": "a.b"}],
        "function_call": {"name": "a.b"},
        "tools": [{"type": "function", "name": "c.d"}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool("c.d")]}},
    }
    mapped = ToolNames.of_request(given_request)
    first, second = mapped.sent("a.b"), mapped.sent("c.d")
    assert mapped.to_request(given_request) == {
        "functions": [{"name": first}],
        "function_call": {"name": first},
        "tools": [{"type": "function", "name": second}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool(second)]}},
    }


@pytest.mark.parametrize("choice", ["auto", "none", "required", None])
def test_a_choice_that_names_no_tool_stays(choice: str | None) -> None:
    assert ToolNames([]).to_request({"tool_choice": choice, "tools": None}) == {
        "tool_choice": choice,
        "tools": None,
    }


def test_a_reply_gets_the_own_names_and_keeps_invented_ones() -> None:
    mapped = ToolNames(["math.sum"])

    def reply(*called: str) -> dict[str, Any]:
        calls = [{"function": {"name": name, "arguments": "{}"}} for name in called]
        return {"id": "x", "choices": [{"message": {"content": None, "tool_calls": calls}}, {"text": "t"}]}

    assert mapped.to_reply(reply(mapped.sent("math.sum"), "invented")) == reply("math.sum", "invented")
    assert (
        mapped.to_message(reply(mapped.sent("math.sum"))["choices"][0]["message"])
        == (reply("math.sum")["choices"][0]["message"])
    )
    assert mapped.to_reply({"choices": None}) == {"choices": None}


def test_a_tool_without_a_name() -> None:
    with pytest.raises(DataError, match="has no name"):
        ToolNames(["a", ""])
