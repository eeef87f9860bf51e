"""Every dialect that kdfast reads becomes the one form that servers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdfast.errors import DataError
from kdfast.teacher.api.sent_messages import sent_choice, sent_messages, sent_tools
from kdfast.teacher.prompts import Prompt

Json = dict[str, Any]
USER = {"role": "user", "content": "q"}


def sent(*messages: Json) -> list[Json]:
    return sent_messages(Prompt(source=Path("p.jsonl"), line=7, index=0, messages=messages))


def calling(*calls: Json, **fields: Any) -> Json:
    return {"role": "assistant", "tool_calls": list(calls), **fields}


def call(arguments: Any = None, name: str = "f", **fields: Any) -> Json:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def result(content: Any = "3", **fields: Any) -> Json:
    return {"role": "tool", "content": content, **fields}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"b": 1, "a": 10.0}, '{"b":1,"a":10.0}'),
        ('{"b": 1.0,  "a": 12345678901234567890123}', '{"b": 1.0,  "a": 12345678901234567890123}'),
        ({"é": [None, True, {"z": 1, "y": 2}]}, '{"é":[null,true,{"z":1,"y":2}]}'),
        (None, "{}"),
        ("", "{}"),
        (" ", "{}"),
        ({}, "{}"),
    ],
)
def test_arguments_are_text_in_the_order_given(given: Any, text: str) -> None:
    for one in (
        call(given),
        {"name": "f", "arguments": given},
        {"function": {"name": "f", "arguments": given}},
    ):
        made = sent(USER, calling(one))[1]["tool_calls"]
        assert made == [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": text}}]


def ids(*messages: Json) -> list[Any]:
    """The ids of calls, then that of each result, message by message."""
    return [
        [one["id"] for one in message["tool_calls"]]
        if "tool_calls" in message
        else message.get("tool_call_id")
        for message in sent(*messages)
    ]


def test_results_belong_to_calls() -> None:
    assert ids(calling(call(), call()), result(), result()) == [["call_1", "call_2"], "call_1", "call_2"]
    assert ids(calling(call(), call(name="g")), result(name="g"), result()) == [
        ["call_1", "call_2"],
        "call_2",
        "call_1",
    ]
    assert ids(calling(call(id="x"), call(id="y")), result(tool_call_id="y"), result()) == [
        ["x", "y"],
        "y",
        "x",
    ]
    assert ids(calling(call(id=7)), result(tool_call_id=7)) == [["7"], "7"]
    assert ids(calling(call()), result(), calling(call()), result()) == [
        ["call_1"],
        "call_1",
        ["call_2"],
        "call_2",
    ]


def test_a_call_without_an_id_takes_that_of_its_result() -> None:
    assert ids(calling(call()), result(tool_call_id="x")) == [["x"], "x"]
    assert ids(calling(call(id="y"), call()), result(tool_call_id="x"), result()) == [["y", "x"], "x", "y"]


def test_made_ids_are_not_those_given_elsewhere() -> None:
    assert ids(calling(call()), result(), calling(call(id="call_1")), result()) == [
        ["call_2"],
        "call_2",
        ["call_1"],
        "call_1",
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [USER, result()],
        [calling(call()), result(), result()],
        [calling(call(id="x")), result(tool_call_id="other")],
        [calling(call(id="x")), result(tool_call_id="x"), result(tool_call_id="x")],
        [calling(call()), calling(call()), result(), result()],
    ],
)
def test_a_result_without_a_call(messages: list[Json]) -> None:
    with pytest.raises(DataError, match=r"p\.jsonl:7: messages\[\d\]: a result, and no call before it"):
        sent(*messages)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x", "x"),
        (None, ""),
        ([{"type": "text", "text": "a"}, "b", {"text": "c"}], "abc"),
        ({"t": 1.0, "a": None}, '{"t":1.0,"a":null}'),
        (3, "3"),
        (False, "false"),
    ],
)
def test_the_content_of_results(content: Any, text: str) -> None:
    assert sent(calling(call()), result(content))[1]["content"] == text


def test_parts_with_more_than_text_stay() -> None:
    marked = {"text": "a", "cache_control": {"type": "ephemeral"}}
    assert sent({"role": "system", "content": [marked]})[0]["content"] == [{"type": "text", **marked}]


def test_reasoning_and_keys_of_data_sets_are_not_sent() -> None:
    turn = {
        "role": "assistant",
        "content": "<think>\nsecret\n</think>\n\nYes.",
        "reasoning_content": "secret",
        "reasoning": "secret",
        "thinking": "secret",
        "weight": 0,
        "train": True,
        "audio": None,
        "tool_calls": None,
    }
    assert sent({**USER, "name": "Ann", "id": 3}, turn) == [
        {"role": "user", "name": "Ann", "content": "q"},
        {"role": "assistant", "content": "Yes."},
    ]
    made = sent(
        USER, calling(call(index=0, extra_content={"thought": "secret"}), content="<think>secret</think>")
    )
    assert "secret" not in json.dumps(made)
    assert made[1]["content"] is None


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": " "},
        {"role": "assistant"},
        {"role": "assistant", "content": "<think>all of it"},
        {"role": "user", "content": None},
        {"role": "system"},
    ],
)
def test_a_message_that_says_nothing(message: Json) -> None:
    with pytest.raises(
        DataError, match=r"p\.jsonl:7: messages\[0\] \(role '\w+'\) says nothing that can be sent"
    ):
        sent(message)


def test_a_refusal_is_something() -> None:
    refusal = {"role": "assistant", "refusal": "No.", "content": None}
    assert sent(refusal) == [refusal]


def test_tools() -> None:
    nothing = {"type": "object", "properties": {}}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wrapped = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    assert sent_tools(
        [
            {"name": "f", "description": "d", "parameters": schema},
            {"type": "function", "name": "f", "parameters": None, "strict": False},
            {"function": {"name": "f"}},
            wrapped,
            {"type": "web_search"},
        ]
    ) == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
        {"type": "function", "function": {"name": "f", "parameters": nothing, "strict": False}},
        {"type": "function", "function": {"name": "f", "parameters": nothing}},
        wrapped,
        {"type": "web_search"},
    ]


@pytest.mark.parametrize(
    "choice", [{"name": "f"}, {"function": {"name": "f"}}, {"type": "function", "name": "f"}]
)
def test_a_named_choice(choice: Json) -> None:
    assert sent_choice(choice) == {"type": "function", "function": {"name": "f"}}
