"""What servers send becomes a record's answer, or a reason in a fixed word; and what it cost is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from server_answers import ACCEPTED, PRICE, USAGE, asked, call, chat, completed, hermes, kind, learned, stored

from kdfast._rust import Tokenizer
from kdfast.errors import DataError
from kdfast.teacher.answers import NO_TOKENS_OF_CALLS, AnswerReader
from kdfast.teacher.api.price import FREE
from kdfast.teacher.api.reply import Origin
from kdfast.teacher.api.usage import Usage

Json = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(tiny.write_tokenizer(tmp_path_factory.mktemp("t")) / "tokenizer.json")


@pytest.fixture(scope="module")
def reader(tokenizer: Tokenizer) -> AnswerReader:
    return AnswerReader(tokenizer, ["hermes"], PRICE)


@pytest.fixture(scope="module")
def wide_reader(tokenizer: Tokenizer) -> AnswerReader:
    return AnswerReader(tokenizer, ["hermes", "mistral", "openai"], PRICE, top_logprobs=2)


def test_a_call(reader: AnswerReader) -> None:
    reading = reader.read(
        asked(), stored({**chat("I look.", call()), "model": "m-2", "system_fingerprint": "fp"})
    )
    assert kind(reading) == ACCEPTED
    assert reading.answer == learned(("math.f", {"a": 1}), content="I look.")
    assert reading.text == 'I look.\nmath.f({"a": 1})'
    assert reading.calls == (("math.f", {"a": 1}),)
    assert (reading.broken_calls, reading.detail, reading.logprobs) == (0, "", "")
    assert reading.origin == Origin("m-2", None, "fp")
    assert (reading.usage, reading.usage_counted) == (Usage(input_tokens=100, output_tokens=10), False)
    assert reading.cost_micro == 120


def test_a_text(reader: AnswerReader) -> None:
    for body, where in ((chat(" No.\n"), None), (completed(" No.\n"), "prompt")):
        reading = reader.read(asked(where), stored(body))
        assert kind(reading) == ACCEPTED
        assert reading.answer == {"teacher_message": {"role": "assistant", "content": " No.\n"}}
        assert (reading.text, reading.calls) == (" No.\n", ())


def test_reasoning_is_taken_out_and_counted(reader: AnswerReader, tokenizer: Tokenizer) -> None:
    thought = f"Maybe {hermes()}"
    count = len(tokenizer.encode(thought))
    for body, where, thinking in (
        (chat("No.", reasoning_content=thought), None, "closed"),
        (completed(f"<think>{thought}</think>No."), "x", "closed"),
        (completed(f"{thought}\n</think>\n\nNo."), "x", "open"),
    ):
        reading = reader.read(asked(where, thinking), stored(body))
        assert reading.answer == {"teacher_message": {"role": "assistant", "content": "No."}}
        assert (reading.reasoning_tokens, reading.calls) == (count, ())
    said = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 4}}
    assert reader.read(asked(), stored({**chat("No.", reasoning="x"), "usage": said})).reasoning_tokens == 4


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"{'choices': oops}", "invalid_json"),
        (200, b"\xff", "invalid_json"),
        (200, {"id": "x"}, "no_choices"),
        (200, {"choices": []}, "empty_choices"),
        (200, {"error": {"message": "Overloaded", "code": 502}}, "error_in_answer"),
        (200, chat("x", finish="content_filter"), "content_filter"),
        (200, chat("x", finish="error"), "broken_off"),
        (200, {"choices": [{"error": {"code": 502}, "message": {}}]}, "error_in_choice"),
        (200, {"choices": [{"finish_reason": "stop"}]}, "no_message"),
        (200, {"choices": chat("x")["choices"] * 2}, "repeated_index"),
        (200, b'{"error": ' * 400 + b"1" + b"}" * 400, "nested_too_deeply"),
        (400, {"error": {"message": "flagged", "code": "content_filter"}}, "content_filter"),
        (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, "context_length"),
        (400, {"error": "no"}, "refused_request"),
        (429, b"slow down", "rate_limited"),
        (500, b"", "server_error"),
        (307, b"", "redirect"),
    ],
)
def test_what_is_no_answer(reader: AnswerReader, status: int, body: Any, reason: str) -> None:
    headers = {"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT", "location": "/elsewhere"}
    reading = reader.read(asked(), stored(body, status, headers))
    assert kind(reading) == ("failed", reason)
    assert reading.detail


def test_what_failures_cost_is_for_the_job_to_say(reader: AnswerReader, tokenizer: Tokenizer) -> None:
    nothing = Usage(input_tokens=0, output_tokens=0)
    for status, body in ((429, b""), (500, b"x"), (400, {"error": "no"})):
        reading = reader.read(asked(), stored(body, status))
        assert (reading.usage, reading.cost_micro, reading.usage_counted) == (nothing, None, False)
    cut = b'{"choices": [{"message": {"content": "Paid'
    count = len(tokenizer.encode(cut.decode()))
    counted = reader.read(asked(worst=60), stored(cut))
    assert counted.usage == Usage(input_tokens=50, output_tokens=count)
    assert (counted.cost_micro, counted.usage_counted) == (None, True)
    told = reader.read(asked(worst=60), stored({"error": {"message": "x"}, "usage": USAGE}))
    assert told.usage == Usage(input_tokens=100, output_tokens=10)
    assert (told.cost_micro, told.usage_counted) == (None, False)


def test_a_cost_that_nobody_can_pay_is_none(tokenizer: Tokenizer) -> None:
    dear = AnswerReader(tokenizer, [], replace(PRICE, input=10**13))
    many = {"prompt_tokens": 10**9, "completion_tokens": 1}
    reading = dear.read(asked(tools=[]), stored({**chat("x"), "usage": many}))
    assert (kind(reading), reading.cost_micro) == (ACCEPTED, None)


def test_answers_of_this_machine_cost_nothing_whatever_the_price(reader: AnswerReader) -> None:
    question = asked("prompt")
    local = replace(question, request=replace(question.request, endpoint="local"))
    assert reader.read(question, stored(completed("No."))).cost_micro == 120
    assert reader.read(local, stored(completed("No."))).cost_micro == 0


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 1e300, "completion_tokens": 1},
    ],
)
def test_tokens_that_the_server_does_not_say_are_counted(
    reader: AnswerReader, tokenizer: Tokenizer, usage: Any
) -> None:
    def tokens(*texts: str) -> int:
        return sum(len(tokenizer.encode(text)) for text in texts)

    sent = call()["function"]
    body = {**chat("I look.", call(), reasoning="Hm."), "usage": usage}
    reading = reader.read(asked(), stored(body))
    output = tokens("Hm.", "I look.", sent["name"], sent["arguments"])
    assert reading.usage == Usage(input_tokens=50, output_tokens=output, reasoning_tokens=tokens("Hm."))
    assert (reading.usage_counted, reading.cost_micro) == (True, 50 + 2 * output)
    assert reader.read(asked(worst=1), stored(body)).cost_micro == 1


def test_more_choices_than_one(reader: AnswerReader) -> None:
    first, second = chat("one")["choices"][0], {**chat("two")["choices"][0], "index": 1}
    reading = reader.read(asked(), stored({"choices": [second, first]}))
    assert reading.text == "one"
    assert reading.detail == "1 more choices are not used"
    assert (
        reading.usage.output_tokens > reader.read(asked(), stored({"choices": [first]})).usage.output_tokens
    )


def test_log_probabilities(tokenizer: Tokenizer) -> None:
    reader = AnswerReader(tokenizer, ["hermes"], FREE, top_logprobs=2)
    said = [
        {
            "token": tokenizer.decode([one]),
            "bytes": list(tokenizer.token_bytes(one)),
            "logprob": -0.1,
            "top_logprobs": [],
        }
        for one in tokenizer.encode("Hello.")
    ]
    body = chat("Hello.")
    body["choices"][0]["logprobs"] = {"content": said}
    reading = reader.read(asked(), stored(body))
    # A message would be rendered anew, so that the tokens could be others: the text itself is learned.
    assert reading.answer["teacher_text"] == "Hello."
    assert reading.answer["teacher_topk"]["ids"] == [[one] for one in tokenizer.encode("Hello.")]
    assert reading.logprobs == ""
    body["choices"][0]["logprobs"] = None
    without = reader.read(asked(), stored(body))
    assert without.answer == {"teacher_message": {"role": "assistant", "content": "Hello."}}
    assert without.logprobs
    assert reader.read(asked(), stored(chat(None, call()))).logprobs == NO_TOKENS_OF_CALLS
    assert reader.read(asked(), stored(chat("x", finish="length"))).logprobs == ""


def test_tools_that_are_no_schema(reader: AnswerReader) -> None:
    wrong = asked(tools=[{"name": "f", "parameters": {"type": "objekt"}}])
    with pytest.raises(DataError, match=r"p\.jsonl:7: .*not a valid JSON Schema"):
        reader.schema(wrong.prompt)
    assert reader.schema(asked(tools=[]).prompt) is None


plain = st.sampled_from([None, True, 0, -1, 2**70, 1.0, 0.1, -5e300, "", 'é<\n"😀', "</tool_call>", {}, []])
values = plain | st.lists(plain, max_size=3) | st.dictionaries(st.sampled_from("ab<"), plain, max_size=2)
OPEN = {"name": "any.thing", "parameters": {"type": "object"}}


@given(
    st.lists(st.dictionaries(st.text('ab</_c>\n"é', max_size=12), values, max_size=3), min_size=1, max_size=3)
)
def test_calls_come_back_as_they_were_sent(reader: AnswerReader, arguments: list[Json]) -> None:
    """A message with calls goes out in a conversation; a server repeats it; it comes back."""
    calls = [
        {"type": "function", "function": {"name": "any.thing", "arguments": given}} for given in arguments
    ]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    question = asked(messages=messages, tools=[OPEN])
    sent = json.loads(question.request.content)["body"]["messages"][1]
    reading = reader.read(question, stored({"choices": [{"message": sent, "finish_reason": "stop"}]}))
    assert kind(reading) == ACCEPTED
    assert reading.answer == {"teacher_message": messages[1]}
    assert json.dumps(reading.answer["teacher_message"]["tool_calls"]) == json.dumps(calls)


keys = st.sampled_from(["choices", "message", "content", "tool_calls", "function", "name", "arguments", "text", "usage",
                        "finish_reason", "index", "error", "logprobs", "prompt_tokens", "completion_tokens", "model",
                        "reasoning_content", "refusal", "type", "code"])  # fmt: skip
words = st.sampled_from(
    ["stop", "length", "assistant", "math.f", "now", hermes(), "<tool_call>", '{"a": 1}', "\ud800"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("aé<\n", max_size=4) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=10,
)
messages = st.fixed_dictionaries(
    {}, optional={"content": anything, "tool_calls": anything, "function_call": anything}
)
choices = st.fixed_dictionaries(
    {"finish_reason": st.sampled_from(["stop", "tool_calls", "length"]) | anything},
    optional={"message": messages, "text": anything, "index": anything, "logprobs": anything},
)
replies = st.fixed_dictionaries(
    {"choices": st.lists(choices, min_size=1, max_size=2)}, optional={"usage": anything}
)


@settings(max_examples=40)
@given(replies | anything, st.sampled_from([None, "prompt"]), st.sampled_from(["open", "closed"]))
def test_whatever_a_server_sends_is_read(
    tokenizer: Tokenizer, document: Any, where: Any, thinking: Any
) -> None:
    reader = AnswerReader(tokenizer, ["hermes", "mistral", "openai"], PRICE, top_logprobs=2)
    question = asked(where, thinking)
    reading = reader.read(question, stored(document))
    assert reading.verdict.kind in ("accepted", "filtered", "failed")
    assert bool(reading.verdict.reason) == (kind(reading) != ACCEPTED)
    shown = [reading.text, reading.detail, reading.calls, reading.answer, vars(reading.origin)]
    assert json.dumps(shown, ensure_ascii=False, allow_nan=False).encode()
    cost = reading.cost_micro
    assert 0 <= cost <= 10**15 if cost is not None else reading.verdict.kind == "failed"
    assert reader.read(question, stored(document)) == reading


@pytest.mark.parametrize("depth", [100, 300, 900, 990, 2000, 10_000])
def test_whatever_is_nested_deeply(reader: AnswerReader, depth: int) -> None:
    nest = '{"a": ' * depth + "1" + "}" * depth
    bodies = (
        nest,
        f'{{"choices": [{{"error": {nest}}}]}}',
        f'{{"choices": [{{"finish_reason": "stop", "message": {{"role": {nest}, "content": {nest}}}}}]}}',
        json.dumps(chat(None, call(arguments=nest))),
        json.dumps(chat(hermes(arguments=nest))),
        json.dumps(chat(hermes("now", nest), finish="length")),
    )
    for body in bodies:
        assert reader.read(asked(), stored(body.encode())).verdict.kind in ("accepted", "filtered", "failed")


@pytest.mark.parametrize(
    "text",
    ['{"name": "math.f", "arguments": {"a": 1}}', '```json\n{"name": "math.f", "arguments": {"a": 1}}\n```'],
)
def test_a_server_without_a_parser_may_write_calls_in_any_format(reader: AnswerReader, text: str) -> None:
    reading = reader.read(asked(), stored(chat(text)))
    assert kind(reading) == ACCEPTED
    assert reading.answer == learned(("math.f", {"a": 1}), content=None)
    # what the tools do not take is a text that looks like a call by chance
    other = reader.read(asked(), stored(chat(text.replace("math.f", "unknown"))))
    assert other.calls == ()
