"""Finding and validating tool calls, against slow twins on generated texts."""

from __future__ import annotations

import json

import naive_tool_call
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tool_call_texts import (
    CHOICES,
    MARKS,
    SPACE,
    TEXTS,
    frames,
    objects,
)

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


@settings(max_examples=600)
@given(TEXTS, CHOICES)
def test_calls_are_those_of_the_twin(text: str, formats: tuple[str, ...]) -> None:
    for unclosed in (False, True):
        expected = naive_tool_call.find(text, formats, unclosed=unclosed)
        assert described(find_tool_calls(text, formats, unclosed=unclosed)) == json.dumps(expected)


def test_the_twin_knows_all_formats() -> None:
    assert tool_call_formats() == list(naive_tool_call.ALL)


@settings(max_examples=200)
@given(TEXTS)
def test_spans_cover_what_they_name(text: str) -> None:
    for call in find_tool_calls(text):
        assert json.loads('"' + text[slice(*call.name_span)] + '"') == call.name
        assert text[slice(*call.body)][0] + text[slice(*call.body)][-1] == "{}"
        written = text[slice(*call.arguments_span)]
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


@settings(max_examples=400)
@given(st.data(), TEXTS, CHOICES)
def test_in_any_chunking_a_stream_finds_what_stands_in_the_text(
    data: st.DataObject, text: str, formats: tuple[str, ...]
) -> None:
    stream, whole = ToolCallStream(formats=formats), text.encode()
    for chunk in data.draw(chunkings(whole)):
        stream.feed(chunk)
    assert as_found(stream, whole) == json.dumps(naive_tool_call.find(text, formats, unclosed=True))


TOOLS = [
    {
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
    {"name": "g"},
]
KNOWN = st.sampled_from(["f", "g", "h"])
SHORT = st.lists(st.one_of(frames(objects(KNOWN)), st.sampled_from(MARKS)), max_size=3).map("".join)


@settings(max_examples=300)
@given(st.data(), SHORT)
def test_a_stream_completes_with_the_shortest_prefix_that_holds_a_valid_call(
    data: st.DataObject, text: str
) -> None:
    schema, whole = ToolSchema(TOOLS), text.encode()

    def valid(calls: list[ToolCall]) -> list[ToolCall]:
        return [call for call in calls if schema.is_valid(call)]

    lengths = range(len(text) + 1)
    shortest = next((end for end in lengths if valid(find_tool_calls(text[:end], unclosed=True))), None)
    stream = ToolCallStream(schema)
    for chunk in data.draw(chunkings(whole)):
        stream.feed(chunk)
    if shortest is None:
        assert (stream.complete_at_byte, stream.name_at_byte) == (None, None)
        assert stream.state in ("prose", "inside")
        return
    (first, *_) = valid(find_tool_calls(text[:shortest], unclosed=True))
    assert stream.complete_at_byte == len(text[:shortest].encode()) - 1
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
        assert stream.complete_at_token == singly.complete_at_token == by_tokens.complete_at_token
        assert stream.name_at_token == singly.name_at_token == by_tokens.name_at_token
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


# ---------------------------------------------------------------- what could become a call


@settings(max_examples=300)
@example(['<tool_call>{"name": "g", "arguments": {}}</tool_call>', "```[]```"])
@given(st.lists(st.tuples(frames(objects(KNOWN)), SPACE).map("".join), min_size=1, max_size=2))
def test_every_beginning_of_valid_calls_looks_like_one(written: list[str]) -> None:
    calls = [frame for frame in written if is_valid_tool_json(frame, TOOLS)]
    text = "".join(calls)
    assert all(looks_like_tool_json(text[:end], TOOLS) for end in range(len(text) + 1))
    # A frame without a call is prose: it may stand beside the calls of a valid text, not here.
    assert looks_like_tool_json("".join(written), TOOLS) == (calls == written)


@settings(max_examples=300)
@given(TEXTS, TEXTS)
def test_what_no_longer_looks_like_a_call_never_will(text: str, more: str) -> None:
    if not looks_like_tool_json(text):
        assert not looks_like_tool_json(text + more)
