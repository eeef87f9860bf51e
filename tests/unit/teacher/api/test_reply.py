"""Every form of a reply becomes one message, or says why it is no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.teacher.api.reply import Answer, Origin, read_reply
from kdfast.teacher.api.tool_names import ToolNames

CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}


def call(arguments: Any = '{"a": 1}', **fields: Any) -> dict[str, Any]:
    return {"id": "call_7", "type": "function", "function": {"name": "f", "arguments": arguments}, **fields}


def read(message: Any, finish: Any = "stop") -> Answer:
    return read_reply({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}).answers[0]


def said(content: Any, finish: Any = "stop", **fields: Any) -> Answer:
    return read({"role": "assistant", "content": content, **fields}, finish)


def test_a_text() -> None:
    answer = said(" Hi.\n")
    assert answer.message == {"role": "assistant", "content": " Hi.\n"}
    assert (answer.finish, answer.problem, answer.reasoning) == ("stop", "", "")


@pytest.mark.parametrize("content", [None, "", "\n\n", []])
@pytest.mark.parametrize("finish", ["tool_calls", "stop", "tool_use", "function_call", "length"])
def test_calls_without_content(content: Any, finish: str) -> None:
    answer = said(content, finish, tool_calls=[call()])
    assert answer.message == {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_calls_beside_content() -> None:
    answer = said("I look.", tool_calls=[call(), call('{"a": 1}')])
    assert answer.message == {"role": "assistant", "content": "I look.", "tool_calls": [CALL, CALL]}


@pytest.mark.parametrize(
    ("arguments", "read_as"),
    [
        ("", {}),
        (" ", {}),
        (None, {}),
        ("{}", {}),
        ({}, {}),
        ({"a": [1, None]}, {"a": [1, None]}),
        ('{"a": 12345678901234567890, "b": "\\u00e9", "c": {"d": 1.5}}',
         {"a": 12345678901234567890, "b": "é", "c": {"d": 1.5}}),
    ],
)  # fmt: skip
def test_arguments(arguments: Any, read_as: Any) -> None:
    message = said(None, tool_calls=[call(arguments)]).message
    assert message is not None
    assert message["tool_calls"][0]["function"]["arguments"] == read_as


@pytest.mark.parametrize(
    "arguments",
    ['{"a": 1', "{'a': 1}", "[1]", "1", '"{}"', '{"a": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}',
     '{"b": {"a": 1, "a": 1}}', "[" * 10_000, [1], 3, '{"a": 1} x', "null"],
)  # fmt: skip
def test_arguments_that_cannot_be_right(arguments: Any) -> None:
    answer = said(None, "tool_calls", tool_calls=[call(arguments)])
    assert (answer.message, answer.problem) == (None, "broken_arguments")
    assert answer.detail
    assert said(None, "length", tool_calls=[call(arguments)]).problem == "cut"


@pytest.mark.parametrize(
    "calls",
    [
        {"tool_calls": "f"},
        {"tool_calls": ["f"]},
        {"tool_calls": [{"type": "function"}]},
        {"tool_calls": [call(type="custom")]},
        {"tool_calls": [{"function": {"arguments": "{}"}}]},
        {"tool_calls": [{"function": {"name": "", "arguments": "{}"}}]},
        {"tool_calls": [call()], "function_call": {"name": "f", "arguments": "{}"}},
    ],
)
def test_calls_that_cannot_be_right(calls: dict[str, Any]) -> None:
    assert said("text", **calls).problem == "broken_call"


def test_the_form_before_2024() -> None:
    answer = said(
        None, "function_call", function_call={"name": "f", "arguments": '{"a": 1}'}, tool_calls=None
    )
    assert answer.message == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert answer.finish == "tool_calls"


@pytest.mark.parametrize(
    ("finish", "read_as"),
    [("stop", "stop"), ("end_turn", "stop"), ("STOP", "stop"), ("eos_token", "stop"), ("length", "length"),
     ("max_tokens", "length")],
)  # fmt: skip
def test_finish_reasons(finish: str, read_as: str) -> None:
    answer = said("Hi", finish)
    assert (answer.finish, answer.finish_reason, answer.problem) == (read_as, finish, "")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (said("x", "content_filter"), "content_filter"),
        (said("x", "SAFETY"), "content_filter"),
        (said("x", "refusal"), "refusal"),
        (said(None, refusal="I cannot help."), "refusal"),
        (said([{"type": "refusal", "refusal": "No."}]), "refusal"),
        (said("x", "error"), "broken_off"),
        (said("x", "abort"), "broken_off"),
        (said("x", None), "unknown_finish"),
        (said("x", "whim"), "unknown_finish"),
        (said("x", "tool_calls"), "calls_missing"),
        (said(None), "empty"),
        (said(" \n"), "empty"),
        (said("", "length"), "cut"),
        (said("<think>hm</think>"), "empty"),
        (said("<think>hm"), "reasoning_not_closed"),
        (said("<think>hm", "length"), "cut"),
        (said({"text": "x"}), "broken_content"),
        (said([{"type": "image_url", "image_url": {}}]), "broken_content"),
        (said([3]), "broken_content"),
        (said("half \ud800"), "not_unicode"),
        (said(None, tool_calls=[call('{"a": "\\ud800"}')]), "not_unicode"),
        (read({"role": "user", "content": "x"}), "role"),
        (read("x"), "no_message"),
        (read_reply({"choices": [{"finish_reason": "stop"}]}).answers[0], "no_message"),
        (read_reply({"choices": [{"error": {"code": 502}, "message": {}}]}).answers[0], "error_in_choice"),
    ],
)
def test_what_is_no_answer(answer: Answer, problem: str) -> None:
    assert answer.problem == problem
    assert answer.message is None
    assert answer.text is None
    assert answer.detail


@pytest.mark.parametrize(
    "answer",
    [
        said("Yes.", reasoning_content="Hm."),
        said("Yes.", reasoning="Hm.", reasoning_content="Hm."),
        said("<think>\nHm.\n</think>\n\nYes."),
        said("Hm.\n</think>\n\nYes."),
        said(
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "Yes."},
            ]
        ),
    ],
)
def test_reasoning_is_taken_out_and_kept_aside(answer: Answer) -> None:
    assert answer.message == {"role": "assistant", "content": "Yes."}
    assert answer.reasoning == "Hm."
    assert "Hm." not in repr(answer)


def test_reasoning_of_what_is_no_answer_is_kept_too() -> None:
    answer = said("", "length", reasoning_content="Long thoughts")
    assert (answer.problem, answer.reasoning) == ("cut", "Long thoughts")
    assert said("<think>hm", "length").reasoning == "hm"
    assert said("<think>a</think>b").reasoning_blocks == 1


def test_several_choices_in_the_order_of_their_numbers() -> None:
    choices = [
        {"index": index, "message": {"content": str(index)}, "finish_reason": "stop"} for index in (2, 0, 1)
    ]
    answers = read_reply({"choices": choices}).answers
    assert [(answer.index, answer.message and answer.message["content"]) for answer in answers] == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]
    unnumbered = [{**choice, "index": None} for choice in choices]
    assert [answer.index for answer in read_reply({"choices": unnumbered}).answers] == [0, 1, 2]
    with pytest.raises(ValueError, match="same index"):
        read_reply({"choices": choices + choices[:1]})


@pytest.mark.parametrize("document", [{}, {"choices": None}, {"choices": []}])
def test_no_choices(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no choices"):
        read_reply(document)


def test_who_answered() -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    document = {"id": "r1", "model": "m-2", "provider": "P", "system_fingerprint": "fp", "choices": [choice]}
    reply = read_reply(document)
    assert (reply.id, reply.origin) == ("r1", Origin("m-2", "P", "fp"))
    assert read_reply({"model": 3, "choices": [choice]}).origin == Origin()


def test_the_tools_own_names_come_back() -> None:
    names = ToolNames(["math.sum"])
    sent = {"function": {"name": names.sent("math.sum"), "arguments": "{}"}}
    reply = read_reply(
        {"choices": [{"message": {"tool_calls": [sent]}, "finish_reason": "tool_calls"}]}, names
    )
    message = reply.answers[0].message
    assert message is not None
    assert message["tool_calls"][0]["function"]["name"] == "math.sum"


def test_completions() -> None:
    def completed(text: str, finish: str = "stop", **options: bool) -> Answer:
        return read_reply({"choices": [{"text": text, "finish_reason": finish}]}, **options).answers[0]

    assert completed(" as it is \n").text == " as it is \n"
    assert completed(" as it is \n").message is None
    assert completed("<think>a</think>b").text == "b"
    assert completed("a</think>\nb", opened_by_prompt=True).text == "b"
    assert completed("a", opened_by_prompt=True).problem == "reasoning_not_closed"
    assert completed("").problem == "empty"
    assert completed("", "length").problem == "cut"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["stop", "f"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "tool_calls", "function", "name", "arguments", "type", "text", "refusal",
                         "function_call", "reasoning", "reasoning_details", "thinking"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(anything, anything)
def test_whatever_comes_is_an_answer_or_has_a_problem(message: Any, finish: Any) -> None:
    answer = read(message, finish)
    assert (answer.message is None) == bool(answer.problem) == bool(answer.detail)
    if answer.message is not None:
        assert json.loads(json.dumps(answer.message, allow_nan=False)) == answer.message


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin("m", "house", "fp"), "m / house / fp"),
        (Origin(provider="house"), "house"),
        (Origin(), "one that says no name"),
    ],
)
def test_who_answered_in_words(origin: Origin, text: str) -> None:
    assert origin.text() == text
