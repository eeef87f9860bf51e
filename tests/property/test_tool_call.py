"""Finding and validating tool calls, against slow twins on generated texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import naive_tool_call
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tool_call_texts import CHOICES, FORMATS, MARKS, TEXTS, frames, objects

from kdfast._rust import (
    Tokenizer,
    ToolCall,
    ToolCallStream,
    ToolSchema,
    find_tool_calls,
    is_valid_tool_json,
    looks_like_tool_json,
    tool_call_formats,
)

pytestmark = pytest.mark.slow


def described(calls: list[ToolCall]) -> str:
    """The calls as the twin describes them."""
    keys = ("format", "name", "arguments", "closed", "span", "body")
    return json.dumps([{key: getattr(call, key) for key in keys} for call in calls])


TOOLS = [
    {
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
    {"name": "g"},
]
KNOWN = st.sampled_from(["f", "g", "h"])
SHORT = st.lists(st.one_of(frames(objects(KNOWN)), st.sampled_from(MARKS)), max_size=4).map("".join)


@settings(max_examples=800)
@given(st.one_of(TEXTS, SHORT), CHOICES, st.sampled_from([None, TOOLS]), st.sampled_from(["open", "closed"]))
def test_calls_are_those_of_the_twin(
    text: str, formats: tuple[str, ...], tools: list[dict[str, Any]] | None, thinking: str
) -> None:
    for unclosed in (False, True):
        expected = naive_tool_call.find(text, formats, unclosed=unclosed, tools=tools, thinking=thinking)
        found = find_tool_calls(text, formats, unclosed=unclosed, tools=tools, thinking=thinking)
        assert described(found) == json.dumps(expected)


@settings(max_examples=300)
@given(st.one_of(TEXTS, SHORT), CHOICES, FORMATS)
def test_fewer_formats_never_give_more_calls(text: str, formats: tuple[str, ...], others: list[str]) -> None:
    def found(formats: Sequence[str]) -> set[tuple[str, str, tuple[int, int]]]:
        calls = find_tool_calls(text, formats)
        return {(call.name, json.dumps(call.arguments), call.span) for call in calls}

    assert found(formats) <= found([*formats, *others]) <= found(tool_call_formats())


def test_the_twin_knows_all_formats() -> None:
    assert tool_call_formats() == list(naive_tool_call.ALL)


@settings(max_examples=200)
@given(TEXTS)
def test_spans_cover_what_they_name(text: str) -> None:
    for call in find_tool_calls(text):
        assert json.loads('"' + text[slice(*call.name_span)] + '"') == call.name
        assert text[slice(*call.body)][0] + text[slice(*call.body)][-1] == "{}"
        written = text[slice(*call.arguments_span)]
        if call.arguments == {} and (written == "null" or not json.loads(f'"{written}"').strip()):
            continue  # there are none
        keys = [text[slice(*span)] for span in call.key_spans]
        values = [text[slice(*span)] for span in call.value_spans]
        if not is_json(written):  # it stands in a string
            written, *rest = (json.loads(f'"{part}"') for part in [written, *keys, *values])
            keys, values = rest[: len(keys)], rest[len(keys) :]
        assert json.loads(written) == call.arguments
        said = [json.loads(f'"{key}"') for key in keys]
        assert dict(zip(said, map(json.loads, values), strict=True)) == call.arguments


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- the stream


@st.composite
def chunkings(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes in pieces of any size, empty ones too."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def as_found(stream: ToolCallStream, data: bytes) -> str:
    """The stream's calls with spans in characters."""

    def characters(span: tuple[int, int]) -> list[int]:
        return [len(data[:byte].decode()) for byte in span]

    keys = ("format", "name", "arguments", "closed")
    return json.dumps(
        [
            {key: getattr(call, key) for key in keys}
            | {"span": characters(call.span), "body": characters(call.body)}
            for call in stream.calls
        ]
    )


@settings(max_examples=500)
@given(st.data(), st.one_of(TEXTS, SHORT), CHOICES)
def test_in_any_chunking_a_stream_finds_what_stands_in_the_text(
    data: st.DataObject, text: str, formats: tuple[str, ...]
) -> None:
    thinking = data.draw(st.sampled_from(["open", "closed"]))
    stream, whole = ToolCallStream(formats=formats, tools=TOOLS, thinking=thinking), text.encode()
    for chunk in data.draw(chunkings(whole)):
        stream.feed(chunk)
    calls, attempts = naive_tool_call.read(text, formats, tools=TOOLS, thinking=thinking)
    assert as_found(stream, whole) == json.dumps(calls)
    assert [(len(whole[:byte].decode()), reason) for byte, reason in stream.attempts] == attempts


@settings(max_examples=300)
@given(st.data(), SHORT)
def test_a_stream_completes_with_the_shortest_prefix_that_holds_a_valid_call(
    data: st.DataObject, text: str
) -> None:
    schema, whole = ToolSchema(TOOLS), text.encode()

    def valid(text: str) -> list[ToolCall]:
        return [call for call in find_tool_calls(text, unclosed=True, tools=schema) if schema.is_valid(call)]

    stream = ToolCallStream(schema)
    for chunk in data.draw(chunkings(whole)):
        stream.feed(chunk)
    if not valid(text):  # also if a call was complete, and its frame took it back
        assert (stream.complete_at_byte, stream.name_at_byte) == (None, None)
        assert stream.state in ("prose", "inside")
        return
    first = valid(text)[0]
    lengths = range(first.body[1] + 1)
    holds = [end for end in lengths if any(call.span[0] == first.span[0] for call in valid(text[:end]))]
    assert stream.complete_at_byte == len(text[: holds[0]].encode()) - 1
    assert stream.name_at_byte == len(text[: first.name_span[1]].encode())
    assert stream.state in ("complete", "inside")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@settings(max_examples=200)
@given(st.data(), SHORT)
def test_tokens_are_counted_where_their_bytes_are(
    tokenizer: Tokenizer, data: st.DataObject, text: str
) -> None:
    ids = tokenizer.encode(text)
    for place in data.draw(st.lists(st.integers(0, len(ids)), max_size=3)):
        ids.insert(place, data.draw(st.integers(0, tokenizer.vocab_size + 3)))
    pieces = [tokenizer.token_bytes(token) for token in ids]
    by_bytes, by_tokens = ToolCallStream(), ToolCallStream(tokenizer=tokenizer)
    by_bytes.feed(b"".join(pieces))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=4)))
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        by_tokens.feed_tokens(ids[start:end])
    assert (by_tokens.complete_at_byte, by_tokens.name_at_byte) == (
        by_bytes.complete_at_byte,
        by_bytes.name_at_byte,
    )
    singly = ToolCallStream(tokenizer=tokenizer)
    fed = next((n for n, token in enumerate(ids, 1) if singly.feed_tokens([token])), None)
    for tokens in (ids, pieces):
        stream, taken = ToolCallStream(tokenizer=tokenizer), iter(tokens)
        assert stream.feed_until_complete(taken) == (fed is not None)
        assert len(list(taken)) == (0 if fed is None else len(ids) - fed)
        assert stream.complete_at_token == singly.complete_at_token
        assert stream.name_at_token == singly.name_at_token
    # What follows may take a call back that was complete: so compare after the same tokens.
    for token in ids[fed if fed is not None else len(ids) :]:
        singly.feed_tokens([token])
    assert singly.complete_at_token == by_tokens.complete_at_token
    assert singly.name_at_token == by_tokens.name_at_token
    ends = [len(b"".join(pieces[: index + 1])) for index in range(len(pieces))]
    for byte, token in (
        (by_tokens.complete_at_byte, by_tokens.complete_at_token),
        (by_tokens.name_at_byte, by_tokens.name_at_token),
    ):
        assert token == (None if byte is None else next(i for i, end in enumerate(ends) if end > byte))


SCRAPS = st.one_of(st.binary(max_size=8), frames().map(str.encode), st.sampled_from(MARKS).map(str.encode))


def as_text(data: bytes) -> str:
    """Each byte that is no UTF-8 as a control character, which no JSON string may hold."""
    text, at = "", 0
    while at < len(data):
        sizes = (size for size in (1, 2, 3, 4) if is_utf8(data[at : at + size]))
        size = next(sizes, 0)
        text += data[at : at + size].decode() if size else "\x01"
        at += size or 1
    return text


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=500)
@given(st.data(), st.lists(SCRAPS, max_size=5).map(b"".join))
def test_any_bytes_may_come(data: st.DataObject, scraps: bytes) -> None:
    whole = scraps + b"\n"  # no character is cut off
    stream = ToolCallStream()
    for chunk in data.draw(chunkings(whole)):
        stream.feed(chunk)
    text = as_text(whole)
    found = naive_tool_call.find(text, unclosed=True)
    got = [(call.name, call.arguments, call.body) for call in stream.calls]
    assert json.dumps(got) == json.dumps(
        [(call["name"], call["arguments"], tuple(byte_of(text, at) for at in call["body"])) for call in found]
    )


def byte_of(text: str, at: int) -> int:
    return len(text[:at].encode())


# ---------------------------------------------------------------- what could become valid


@settings(max_examples=300)
@example('{"name": "g", "arguments": {}};{"name": "g", "arguments": {}}', naive_tool_call.ALL, "closed")
@given(st.one_of(TEXTS, SHORT), CHOICES, st.sampled_from(["open", "closed"]))
def test_every_beginning_of_a_valid_text_looks_like_one(
    text: str, formats: tuple[str, ...], thinking: str
) -> None:
    for tools in (None, TOOLS):
        if is_valid_tool_json(text, tools, formats, thinking=thinking):
            beginnings = [text[:end] for end in range(len(text) + 1)]
            assert all(looks_like_tool_json(one, tools, formats, thinking=thinking) for one in beginnings)


@settings(max_examples=300)
@given(st.one_of(TEXTS, SHORT), st.one_of(TEXTS, SHORT))
def test_what_no_longer_looks_valid_never_will(text: str, more: str) -> None:
    if not looks_like_tool_json(text):
        assert not looks_like_tool_json(text + more)
        assert not is_valid_tool_json(text + more)
