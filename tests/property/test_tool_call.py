"""Finding and validating tool calls, against slow twins on generated texts."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import naive_tool_call
import tiny
from kdfast import compute_required_fields_present
from kdfast._rust import (
    Tokenizer,
    ToolCall,
    ToolCallStream,
    ToolSchema,
    find_tool_calls,
    is_valid_tool_json,
    looks_like_tool_json,
    required_fields_present,
    tool_call_formats,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
AWKWARD = st.sampled_from(
    ["</tool_call>", "<tool_call>", '"', "\\", "{", "}", "é😀", "\n", "\u2028", "```", "[TOOL_CALLS]"]
)
STRINGS = st.lists(st.one_of(TEXT, AWKWARD), max_size=3).map("".join)
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), STRINGS
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(STRINGS, inner, max_size=3)),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(STRINGS, JSON, max_size=3)
SPACE = st.sampled_from(["", "\n", " \t\r\n"])
FORMATS = st.lists(st.sampled_from(naive_tool_call.ALL), min_size=1, unique=True)
# The twin takes the formats in the order of the table.
CHOICES = st.one_of(
    st.just(naive_tool_call.ALL),
    FORMATS.map(lambda chosen: tuple(name for name in naive_tool_call.ALL if name in chosen)),
)


@st.composite
def objects(draw: st.DrawFn, name: st.SearchStrategy[str] = STRINGS) -> dict[str, Any]:
    """A call's object, in one of the shapes; most are calls."""
    name_key = draw(st.sampled_from(["name", "name", "name", "tool", "function"]))
    key = draw(st.sampled_from(["arguments", "arguments", "parameters", "args"]))
    body = {name_key: draw(name), key: draw(ARGUMENTS)}
    match draw(st.integers(0, 9)):
        case 0:
            body |= draw(
                st.dictionaries(st.one_of(STRINGS, st.sampled_from(["name", "args"])), JSON, max_size=1)
            )
        case 1:
            body[key] = json.dumps(body[key], ensure_ascii=draw(st.booleans()))
        case 2:
            body = {"type": "function", "function": body}
        case 3:
            body[key] = json.dumps(body[key], ensure_ascii=draw(st.booleans()))
            body = {"id": "c", "type": "function", "function": body}
    return body


@st.composite
def frames(draw: st.DrawFn, bodies: st.SearchStrategy[Any] | None = None) -> str:
    """A frame of one of the formats."""
    bodies = objects() if bodies is None else bodies
    content: Any = draw(bodies)
    match draw(st.integers(0, 3)):
        case 0:
            content = draw(st.lists(st.one_of(bodies, bodies, bodies, JSON), max_size=3))
        case 1:
            content = {"tool_calls": draw(st.lists(bodies, max_size=3))}
            content |= draw(st.dictionaries(STRINGS, JSON, max_size=1))
    written = json.dumps(content, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    opening = draw(st.sampled_from(["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "```", "```json", ""]))
    closing = {"<tool_call>": "</tool_call>", "```": "```", "```json": "```"}.get(opening, "")
    return f"{opening}{draw(SPACE)}{written}{draw(SPACE)}{closing}"


MARKS = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "```",
    "```json",
    "tool_calls",
    '"',
    "{",
    "}",
]
MARKS += [
    "[",
    "]",
    "\\",
    ":",
    ",",
    " ",
    "1e400",
    "-",
    "null",
    "\\ud83d",
    "\\u00e9",
    '{"name": "f", "arguments": {}}',
    "{" * 130,
]
PIECES = st.one_of(
    frames(),
    frames().flatmap(lambda frame: st.integers(0, len(frame)).map(lambda cut: frame[:cut])),
    st.sampled_from(MARKS),
    TEXT,
)
TEXTS = st.lists(PIECES, max_size=5).map("".join)


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


# ---------------------------------------------------------------- schemas

PROPERTY = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 0},
        {"type": "number"},
        {"type": "boolean"},
        {"enum": ["a", 1, None]},
        {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
        {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^a"}]},
        {"type": ["string", "null"]},
        {"$ref": "#/$defs/positive"},
    ]
)
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.one_of(
    JSON, st.sampled_from(["a", "abc", 1, 0, -1, 2.0, True, None, [], ["x"], {"x": 1}, {"x": "1"}, {}])
)
DRAFTS = {
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
    None: jsonschema.Draft202012Validator,
}


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": draw(st.dictionaries(NAMES, PROPERTY, max_size=3)),
        "required": draw(st.lists(NAMES, max_size=2, unique=True)),
        "$defs": {"positive": {"type": "integer", "exclusiveMinimum": 0}},
    }
    if draft := draw(st.sampled_from(list(DRAFTS))):
        schema["$schema"] = draft
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    return schema


def in_format(kind: str, name: str, arguments: dict[str, Any], ascii_only: bool) -> str:
    """The call written in that format."""

    def dumps(value: object, indent: int | None = None) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    body = {"name": name, "arguments": arguments}
    function = {"name": name, "arguments": dumps(arguments)}
    message = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    return {
        "hermes": f"<tool_call>\n{dumps(body)}\n</tool_call>",
        "mistral": f"[TOOL_CALLS] {dumps([body])}",
        "llama3": f"<|python_tag|>{dumps({'name': name, 'parameters': arguments})}",
        "fenced": f"```json\n{dumps(body, 2)}\n```",
        "array": dumps([body]),
        "object": dumps(body),
        "openai": dumps(message),
    }[kind]


@settings(max_examples=400)
@given(
    schemas(),
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.booleans(),
    st.sampled_from(naive_tool_call.ALL),
    st.booleans(),
)
def test_verdicts_are_those_of_json_and_jsonschema_in_every_format(
    schema: dict[str, Any], arguments: dict[str, Any], openai: bool, kind: str, ascii_only: bool
) -> None:
    function = {"name": "f", "description": "d", "parameters": schema}
    tools = [{"type": "function", "function": function}] if openai else [function]
    text = in_format(kind, "f", arguments, ascii_only)
    compiled = ToolSchema(tools)
    expected = DRAFTS[schema.get("$schema")](schema).is_valid(arguments)
    (call,) = find_tool_calls(text)
    assert (call.format, call.name, json.dumps(call.arguments)) == (kind, "f", json.dumps(arguments))
    assert compiled.is_valid(call) == expected
    assert (compiled.issues(call) == []) == expected
    assert compiled.is_valid_batch([call, text]) == [expected, expected]
    assert [issues == [] for issues in compiled.validate_batch([call, text])] == [expected, expected]
    for around in (text, f"So: {text}", f"{text} done {{x}}"):
        assert is_valid_tool_json(around, compiled) == expected
        stream = ToolCallStream(compiled)
        stream.feed(around.encode())
        assert (stream.state == "complete") == expected
    required = all(name in arguments for name in schema["required"])
    assert compute_required_fields_present([call], tools) == [required]
    # Texts are judged by the format that students write.
    assert required_fields_present(text, tools) == (required and kind == "hermes")
