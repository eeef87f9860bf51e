"""Attempts at calls: what is one, what is prose, and what an answer with one scores."""

from __future__ import annotations

import json

import pytest
from weather_calls import OBJECT, WEATHER, call

from kdfast._rust import ToolCallStream, find_attempted_calls, find_tool_calls
from kdfast.scoring import quality, score_answer

CALL = call('{"city": "Rome"}')
ATTEMPTS = [
    (CALL[:-20], "cut"),
    ("<tool_call>", "cut"),
    (f"<tool_call>{OBJECT}", "unclosed"),
    (CALL.replace('"}}', '"},}'), "malformed"),
    (CALL.replace('{"city": "Rome"}', '"{}"'), "arguments"),
    (CALL.replace("<tool_call>", "[TOOL_CALLS]").replace("</tool_call>", ""), "format"),
    (f"Sure: {OBJECT}", "format"),
    (f"```json\n{OBJECT}\n```", "format"),
    (
        "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>",
        "malformed",
    ),
    ("<function=weather><parameter=city>Rome</parameter></function>", "format"),
    ("<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call>", "malformed"),
    ("<tool_call>weather\n</tool_call>", "malformed"),
    ("[TOOL_CALLS]weather[ARGS]{}", "malformed"),
    ('[weather(city="Rome")]', "format"),
    ('<|tool_call_start|>[weather(city="Rome")]<|tool_call_end|>', "format"),
    ("<start_function_call>call:weather{city:<escape>Rome<escape>}<end_function_call>", "format"),
    ('<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|>', "format"),
    (f"<|tool_call|>{OBJECT}<|/tool_call|>", "format"),
    ('<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city": "Rome"}', "format"),
    ('commentary to=functions.weather <|message|>{"city": "Rome"}', "format"),
    (OBJECT.replace(":", "", 1), "malformed"),
    (OBJECT[1:], "malformed"),
    (OBJECT.replace('"', "'"), "malformed"),
    ('{"tool_name": "weather", "input": {"city": "Rome"}}', "format"),
    (f"<tool_call>\nx{OBJECT[1:]}\n</tool_call>", "malformed"),
]
PROSE = [
    "",
    "I cannot tell the weather of Rome.",
    "The weather(city) function needs a city.",
    "The <tool_call> tag opens a call, </tool_call> ends it.",
    "Use <tool_call></tool_call> around the <tool_call> tag(s), or the <tool_call> [tag] of element{s}.",
    "Phi-4 uses <|tool_call|>. Use <tool_calls> as the root element.",
    '{"name": "Alice", "age": 3}',
    '{"status": "weather", "eta": 3}',
    '{"name": "Launch", "args": ["--port"]}',
    'The "weather" tool takes {"city": ...}.',
    '```python\nprint(weather("Rome"))\n```',
    f"<think>Maybe {CALL}</think>I cannot.",
]


@pytest.mark.parametrize(("text", "reason"), ATTEMPTS)
def test_an_attempt_is_seen_and_scored(text: str, reason: str) -> None:
    assert [why for _, why in find_attempted_calls(text, ["hermes"], tools=[WEATHER])] == [reason]

    def score(*, due: bool):  # type: ignore[no-untyped-def]
        return score_answer(
            text,
            [WEATHER],
            accepted=[{"weather": {"city": ["Rome"]}}] if due else [],
            reference_text="",
            should_call=due,
        )

    other, due = score(due=False), score(due=True)
    assert (other.parsed, other.false_call, other.attempted_call, other.broken_call) == (
        False,
        True,
        True,
        False,
    )
    assert (due.missed_call, due.broken_call, due.attempted_call) == (True, True, False)
    assert due.mismatch is not None
    assert due.mismatch.reason == "broken_call"
    assert due.calls_unclosed == (reason == "unclosed")
    section = quality([other, due])
    rates = ("false_call_rate", "attempted_call_rate", "missed_call_rate", "broken_call_rate")
    assert [section[name]["value"] for name in rates] == [1, 1, 1, 1]
    assert section["f1"]["per_prompt"] == [[0, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_no_attempt(text: str) -> None:
    assert find_attempted_calls(text, ["hermes"], tools=[WEATHER]) == []
    if text:
        assert find_attempted_calls(f"{CALL} {text}", ["hermes"], tools=[WEATHER]) == []


def test_beside_a_call_only_what_is_marked_is_an_attempt() -> None:
    def starts(text: str) -> list[int]:
        return [start for start, _ in find_attempted_calls(text, ["hermes"], tools=[WEATHER])]

    assert starts(f"{CALL} I called {OBJECT}.") == []
    assert starts(f"{CALL}[TOOL_CALLS]{OBJECT}") == [len(CALL)]
    assert starts(f"{CALL}tool_call>{OBJECT}</tool_call>") == [len(CALL) + len("tool_call>")]


def test_a_draft_after_a_broken_frame_is_no_call() -> None:
    for before in ("<tool_call>{bad", "<tool_call>", f"<tool_call>{OBJECT}", "<tool_call>weather(x)"):
        text = f"{before}<think>{CALL}</think>No."
        assert find_tool_calls(text) == []
        stream = ToolCallStream([WEATHER])
        stream.feed(text.encode())
        assert [found.closed for found in stream.calls] == []
        assert stream.complete_at_byte is None


def test_an_answer_that_was_cut_is_not_called_unclosed() -> None:
    def unclosed(text: str, *, finished: bool) -> int:
        return score_answer(
            text, [], accepted=[], reference_text="", should_call=True, finished=finished
        ).calls_unclosed

    cut = f"<tool_call>{OBJECT}"
    assert (unclosed(cut, finished=True), unclosed(cut, finished=False)) == (1, 0)
    assert unclosed(f"{cut}<tool_call>{{", finished=False) == 1
    assert unclosed(f"{cut}{CALL}", finished=False) == 1


def test_a_broken_list_weighs_as_much_as_its_complete_calls() -> None:
    whole = json.dumps([json.loads(OBJECT)] * 3)
    for text, broken in ((whole[:-1], 3), (whole[:-9], 2), (whole[:20], 1)):
        score = score_answer(
            text, [WEATHER], accepted=[], reference_text="", should_call=False, formats=["array"]
        )
        assert (score.calls_made, score.calls_broken) == (0, broken)


def test_arguments_beside_the_name_are_not_dropped() -> None:
    tool = {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}
    text = '<tool_call>{"name": "f", "a": 1}</tool_call>'
    assert find_tool_calls(text, tools=[tool]) == []
    assert find_attempted_calls(text, tools=[tool]) == [(0, "malformed")]
    assert len(find_tool_calls('<tool_call>{"name": "f", "id": "c1"}</tool_call>', tools=[tool])) == 1
