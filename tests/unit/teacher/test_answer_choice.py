"""Which answers are used, and what is read of the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny
from server_answers import ACCEPTED, PRICE, asked, call, chat, completed, hermes, kind, learned, stored

from kdfast._rust import Tokenizer
from kdfast.teacher.answers import AnswerReader

Json = dict[str, Any]
NUMBERS = '{"a": 1.0, "b": 12345678901234567890123, "c": -0.5e3}'
REQUIRED = {"tool_choice": "required"}
NAMED = {"tool_choice": {"type": "function", "function": {"name": "math.f"}}}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> AnswerReader:
    directory = tiny.write_tokenizer(tmp_path_factory.mktemp("t"))
    return AnswerReader(Tokenizer.from_file(directory / "tokenizer.json"), ["hermes"], PRICE)


def test_numbers_stay_as_they_were_written(reader: AnswerReader) -> None:
    answers = [
        reader.read(asked(), stored(chat(None, call(arguments=NUMBERS)))).answer,
        reader.read(asked("x"), stored(completed(hermes(arguments=NUMBERS)))).answer,
        reader.read(asked(), stored(chat(None, call(arguments=json.loads(NUMBERS))))).answer,
    ]
    for answer in answers:
        given = answer["teacher_message"]["tool_calls"][0]["function"]["arguments"]
        assert json.dumps(given) == '{"a": 1.0, "b": 12345678901234567890123, "c": -500.0}'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (hermes(), learned(("math.f", {"a": 1}))),
        (
            f"Hm.\n{hermes()}\n{hermes('now', '{}')}\n",
            learned(("math.f", {"a": 1}), ("now", {}), content="Hm."),
        ),
        (f"{hermes()} There.", {"teacher_text": f"{hermes()} There."}),
        (f"{hermes()} and {hermes()}", {"teacher_text": f"{hermes()} and {hermes()}"}),
    ],
)
def test_calls_as_text(reader: AnswerReader, text: str, answer: Json) -> None:
    completion = reader.read(asked("x"), stored(completed(text)))
    assert (kind(completion), completion.answer, completion.text, completion.detail) == (
        ACCEPTED,
        answer,
        text,
        "",
    )
    message = reader.read(asked(), stored(chat(text)))
    assert (kind(message), message.answer) == (ACCEPTED, answer)
    assert message.detail == "the server gave its calls as text"
    assert message.calls == completion.calls


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (chat("I cannot.", refusal="I cannot."), "refusal"),
        (chat("half", finish="length"), "cut"),
        (chat(None, call(), finish="length"), "cut"),
        (chat(None, call(arguments='{"a"'), finish="length"), "cut"),
        (chat("half \ud800", finish="length"), "cut"),
        (chat("half \ud800"), "not_unicode"),
        (chat(""), "empty"),
        (chat("<think>hm"), "reasoning_not_closed"),
        (chat(None, call(arguments="{'a': 1}")), "broken_arguments"),
        (chat(hermes(arguments='{"a": 1, "a": 2}')), "broken_arguments"),
        (chat("x", finish="tool_calls"), "calls_missing"),
        (chat("x", finish=None), "unknown_finish"),
        (chat(None, call("math.f", '{"a": "x"}')), "schema_broken"),
        (chat(None, call("math.f", "{}")), "schema_broken"),
        (chat(None, call("other", "{}")), "schema_broken"),
        (chat(None, call(), call("math.f", "{}")), "schema_broken"),
        (chat(hermes("other", "{}")), "schema_broken"),
        (chat(hermes(arguments='{"a": 1e999}')), "no_valid_call"),
        (chat(hermes(arguments='{"a": "\\ud800"}')), "no_valid_call"),
        (chat('<tool_call>{"name": "math.f", "arg'), "no_valid_call"),
        (chat('[TOOL_CALLS][{"name": "math.g", "arguments": {"a": 1}}]'), "no_valid_call"),
        (chat(hermes(), call()), "no_valid_call"),
        (chat("<tool_call>{", call()), "no_valid_call"),
    ],
)
def test_answers_that_are_not_used(reader: AnswerReader, body: Json, reason: str) -> None:
    reading = reader.read(asked(), stored(body))
    assert kind(reading) == ("filtered", reason)
    assert reading.detail
    assert reading.cost_micro == 120


def test_a_text_may_tell_what_is_called_beside_it(reader: AnswerReader) -> None:
    for content in ("I call now() for you.", 'I use {"name": "now"}.', "The <tool_call> tag: see below."):
        assert kind(reader.read(asked(), stored(chat(content, call())))) == ACCEPTED


@pytest.mark.parametrize(
    ("fields", "calls", "verdict"),
    [
        (REQUIRED, [], "no_valid_call"),
        (REQUIRED, ["now"], ""),
        (NAMED, [], "no_valid_call"),
        (NAMED, ["math.f"], ""),
        (NAMED, ["now"], "call_not_allowed"),
        ({"should_call": True}, [], "no_valid_call"),
        ({"should_call": True}, ["now"], ""),
        ({"should_call": False}, ["now"], "call_not_allowed"),
        ({"should_call": False}, [], ""),
        ({"tool_choice": "none"}, ["now"], "call_not_allowed"),
        ({"tool_choice": "none"}, [], ""),
        ({"tools": []}, ["now"], "call_not_allowed"),
        ({"tools": []}, [], ""),
        ({"parallel_tool_calls": False}, ["now", "now"], "call_not_allowed"),
        ({"parallel_tool_calls": False}, ["now"], ""),
        ({"parallel_tool_calls": True}, ["now", "now"], ""),
    ],
)
def test_what_the_prompt_allows_and_demands(
    reader: AnswerReader, fields: Json, calls: list[str], verdict: str
) -> None:
    made = {"math.f": '{"a": 1}', "now": "{}"}
    expected = ("filtered", verdict) if verdict else ACCEPTED
    given_prompt = asked(**fields)
    structured = chat(None if calls else "No.", *[call(name, made[name]) for name in calls])
    assert kind(reader.read(given_prompt, stored(structured))) == expected
    text = "\n".join(hermes(name, made[name]) for name in calls) or "No."
    assert kind(reader.read(asked("x", **fields), stored(completed(text)))) == expected


def test_what_is_read_of_an_answer_that_is_not_used(reader: AnswerReader) -> None:
    mixed = reader.read(asked(), stored(chat("I look.", call(), call(arguments='{"a"'))))
    assert kind(mixed) == ("filtered", "broken_arguments")
    assert mixed.calls == (("math.f", {"a": 1}),)
    assert (mixed.broken_calls, mixed.text) == (1, 'I look.\nmath.f({"a": 1})')
    text = f"{hermes()}<tool_call>{{"
    cut = reader.read(asked("x"), stored(completed(text, "length")))
    assert kind(cut) == ("filtered", "cut")
    assert (cut.calls, cut.broken_calls, cut.text) == ((("math.f", {"a": 1}),), 1, text)
    assert reader.read(asked(), stored(chat("x", finish="tool_calls"))).broken_calls == 1
    assert reader.read(asked(), stored(chat(None, finish="MALFORMED_FUNCTION_CALL"))).broken_calls == 1
    filtered = reader.read(asked(), stored(chat(f"x {hermes()}", finish="content_filter")))
    assert filtered.calls == (("math.f", {"a": 1}),)
    assert reader.read(asked(), stored(chat("half \ud800"))).text == "half ?"
    twice = reader.read(asked("x"), stored(completed(hermes(arguments='{"a": 1, "a": 2}'), "abort")))
    assert (twice.calls, twice.broken_calls) == ((), 1)
