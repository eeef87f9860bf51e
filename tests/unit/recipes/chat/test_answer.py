"""One answer: text that comes piece by piece, calls, and times of the engine alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedEngine
from tiny_run import TOOL

from kdfast._rust import Tokenizer, ToolSchema
from kdfast.recipes.chat.answer import Answer, AnswerRules, TextStream, generate_answer, printable
from kdfast.recipes.chat.prompt import ChatPrompt
from kdfast.speed import SpeedOptions, SpeedPrompt, measure_prompt

END = 2
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "get_weather", "arguments": {"town": "Rome"}}\n</tool_call>'
PROMPT = ChatPrompt(ids=[1, 5, 6], thinking="closed", turn_end_ids=[END])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(tiny.write_tokenizer(tmp_path_factory.mktemp("answer")))


def spoken(tokenizer: Tokenizer, text: str, *, most: int = 500, **options: Callable[..., object]) -> Answer:
    rules = AnswerRules(end_ids=frozenset({END}), most=most, formats=("hermes",), schema=ToolSchema([TOOL]))
    return generate_answer(ScriptedEngine(tokenizer, [text], END), PROMPT, tokenizer, rules, **options)  # type: ignore[arg-type]


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.feed(token) for token in ids), stream.finish()]


@given(text=st.text())
def test_pieces_make_the_text(tokenizer: Tokenizer, text: str) -> None:
    assert "".join(pieces_of(tokenizer, tokenizer.encode(text))) == text


@given(ids=st.lists(st.integers(0, 511), max_size=12))
def test_pieces_of_any_tokens_make_their_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_comes_when_it_is_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🦀")
    assert len(ids) == 3
    assert pieces_of(tokenizer, ids) == ["", "", "🦀", ""]
    assert pieces_of(tokenizer, ids[:2]) == ["", "", "\ufffd"]


def test_what_steers_a_terminal_is_spelled_out() -> None:
    assert printable("a\tb\né🦀") == "a\tb\né🦀"
    assert printable("\x1b]0;x\x07\r\x9b") == "\\x1b]0;x\\x07\\x0d\\x9b"


def test_calls_and_first_action_as_kdfast_measures_them(tokenizer: Tokenizer) -> None:
    text = f"Well: {WRONG} no, {CALL} so."
    pieces: list[str] = []
    answer = spoken(tokenizer, text, on_text=pieces.append)
    assert "".join(pieces) == answer.text == text
    assert (answer.ended, answer.stopped, answer.attempts) == (True, False, [])
    assert [call.arguments for call in answer.calls] == [{"town": "Rome"}, {"city": "Rome"}]
    sample = measure_prompt(
        ScriptedEngine(tokenizer, [text], END),
        SpeedPrompt(text="x", tools=json.dumps([TOOL]), needs_call=True),
        tokenizer,
        SpeedOptions(max_new_tokens=500, eos_ids=(END,), formats=("hermes",)),
    )
    assert (answer.first_action, answer.ids) == (sample.ttfa_tokens, list(sample.ids))


def test_times_are_those_of_the_engine(tokenizer: Tokenizer) -> None:
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += 0.5
        return now

    def print_slowly(_: str) -> None:
        nonlocal now
        now += 100.0

    answer = spoken(tokenizer, CALL, on_text=print_slowly, clock=tick)
    assert answer.prefill_ms == 500
    assert answer.steps_ms == [500.0] * len(answer.ids)
    assert (answer.ttft_ms, answer.tps) == (1000.0, 2.0)
    assert answer.first_action is not None
    assert answer.ttfa_ms == 500 * (1 + answer.first_action)


def test_one_token_has_no_rate_and_no_call_no_time(tokenizer: Tokenizer) -> None:
    answer = spoken(tokenizer, "")
    assert (answer.text, answer.ids, answer.ended) == ("", [END], True)
    assert (answer.tps, answer.first_action, answer.ttfa_ms) == (None, None, None)


def test_cut_and_stopped(tokenizer: Tokenizer) -> None:
    cut = spoken(tokenizer, CALL, most=5)
    assert (len(cut.ids), cut.ended, cut.stopped, cut.calls) == (5, False, False, [])
    assert cut.attempts == ["cut"]
    presses = iter([False, False, True])
    stopped = spoken(tokenizer, CALL, stop=lambda: next(presses))
    assert (len(stopped.ids), stopped.ended, stopped.stopped) == (3, False, True)
    assert CALL.startswith(stopped.text)
