"""Tool calls in a text that is still being written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from weather_calls import OBJECT, WEATHER, call

from kdfast._rust import (
    ToolCallStream,
    find_tool_calls,
)


def test_a_stream_says_where_the_call_was_complete() -> None:
    text = "Très bien: " + call('{"city": "Zürich 😀"}')
    data = text.encode()
    stream = ToolCallStream([WEATHER])
    states = []
    for byte in data:
        stream.feed(bytes([byte]))
        states.append(stream.state)
    brace = len(data) - len("}\n</tool_call>")
    assert stream.complete_at_byte == brace
    assert stream.name_at_byte == data.index(b'", "arg')
    assert (stream.complete_at_token, stream.name_at_token) == (None, None)
    opened = data.index(b"<tool_call>") + len("<tool_call>") - 1
    assert states == ["prose"] * opened + ["inside"] * (brace - opened) + ["complete"] * (len(data) - brace)
    (found,) = stream.calls
    assert (found.arguments, found.closed) == ({"city": "Zürich 😀"}, True)
    assert data[slice(*found.span)].decode() == call('{"city": "Zürich 😀"}')


def test_a_stream_waits_for_a_call_that_is_valid() -> None:
    bad, good = call("{}"), call('{"city": "x"}')
    stream = ToolCallStream([WEATHER])
    assert not stream.feed(bad.encode())
    assert (stream.state, stream.complete_at_byte, len(stream.calls)) == ("prose", None, 1)
    assert not stream.feed(good[:20].encode())
    assert stream.feed(good[20:].encode())
    assert (stream.state, len(stream.calls)) == ("complete", 2)
    assert stream.feed(b"and more")
    assert stream.complete_at_byte == len(bad) + good.rindex("}")


def test_further_calls_are_announced() -> None:
    stream = ToolCallStream()
    seen = []
    for piece in ("[", OBJECT, ", ", OBJECT[:-1], "}", "]"):
        stream.feed(piece.encode())
        seen.append((stream.state, stream.more_expected))
    assert seen[1:] == [
        ("complete", True),
        ("complete", True),
        ("inside", True),
        ("complete", True),
        ("complete", False),
    ]


def test_a_call_that_is_too_long_ends_the_stream() -> None:
    stream = ToolCallStream(max_call_bytes=100)
    stream.feed(b"x" * 1000 + b'{"name": "')
    assert stream.state == "inside"
    stream.feed(b"x" * 100)
    assert stream.state == "impossible"
    stream.feed(OBJECT.encode())
    assert (stream.state, stream.calls) == ("impossible", [])


def test_tokens_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="tokenizer must be given"):
        ToolCallStream().feed_tokens([1])


def test_tokens_are_taken_from_an_iterator_until_a_call_is_complete() -> None:
    stream = ToolCallStream([WEATHER])
    seen: list[str] = []

    def tokens() -> Iterator[bytes]:
        for character in "Well: " + call('{"city": "Rome"}') + " and more":
            seen.append(stream.state)  # it may be looked at meanwhile
            yield character.encode()

    pieces = tokens()
    assert stream.feed_until_complete(pieces)
    assert stream.complete_at_byte == stream.complete_at_token == len(seen) - 1
    assert set(seen) == {"prose", "inside"}
    rest = b"".join(pieces).decode()
    assert rest == "\n</tool_call> and more"
    assert stream.feed_until_complete(iter([b"never taken"]))
    stream.feed(rest.encode())
    assert [found.closed for found in stream.calls] == [True]


def test_an_iterator_that_ends_or_fails_leaves_the_stream_as_it_is() -> None:
    text = call('{"city": "Rome"}')
    stream = ToolCallStream([WEATHER])
    assert not stream.feed_until_complete([text[:20].encode(), b""])

    def failing() -> Iterator[bytes]:
        yield text[20:25].encode()
        raise RuntimeError("the model is gone")

    with pytest.raises(RuntimeError, match="the model is gone"):
        stream.feed_until_complete(failing())
    with pytest.raises(TypeError, match="tokens must be ids or bytes, got <class 'str'>"):
        stream.feed_until_complete(["x"])
    with pytest.raises(OverflowError):
        stream.feed_until_complete([-1])
    with pytest.raises(ValueError, match="tokenizer must be given"):
        stream.feed_until_complete([1])
    assert stream.feed_until_complete([text[25:].encode()])
    assert stream.complete_at_token == 3


def test_nothing_more_is_taken_once_no_call_can_come() -> None:
    stream = ToolCallStream(max_call_bytes=100)
    assert not stream.feed_until_complete(itertools.chain([b'{"name": "'], itertools.repeat(b"x")))
    assert stream.state == "impossible"
    rest = iter([b"x"])
    assert not stream.feed_until_complete(rest)
    assert next(rest) == b"x"


@pytest.mark.slow
def test_time_is_linear_in_the_text() -> None:
    hostile = [
        '<tool_call>{"a":',
        "<tool_call>{",
        '<tool_call>{"',
        "<tool_call>[",
        '<tool_call>{"a":["',
        "[",
        "{",
        '["',
    ]
    hostile += [
        '{"a":',
        '{"a":[',
        "```",
        "`",
        "[TOOL_CALLS",
        '{"a": "{',
        '[{},"',
        "[1],",
        '{"tool_calls":[',
        "[[]",
    ]
    for piece in hostile:
        for text in (
            piece * 100_000,
            piece * 100 + '"' + "x" * 1_000_000 + "\n",
            "[" * 127 + piece * 100_000 + "!",
        ):
            start = time.perf_counter()
            find_tool_calls(text)
            stream = ToolCallStream(max_call_bytes=1 << 30)
            stream.feed(text.encode())
            assert time.perf_counter() - start < 20
