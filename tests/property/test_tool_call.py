"""Finding and validating tool calls, against slow twins on generated texts."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_tool_call
from kdfast._rust import ToolSchema, find_tool_calls, is_valid_tool_json, required_fields_present

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
AWKWARD = st.sampled_from(["</tool_call>", "<tool_call>", '"', "\\", "{", "}", "é😀", "\n", "\u2028"])
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


@st.composite
def calls(draw: st.DrawFn) -> str:
    body = {"name": draw(STRINGS), "arguments": draw(ARGUMENTS)} | draw(
        st.dictionaries(STRINGS, JSON, max_size=1)
    )
    written = json.dumps(body, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    return f"<tool_call>{draw(SPACE)}{written}{draw(SPACE)}</tool_call>"


PIECES = st.one_of(
    calls(),
    calls().flatmap(lambda call: st.integers(0, len(call)).map(lambda cut: call[:cut])),
    st.sampled_from(
        ["<tool_call>", "</tool_call>", '{"name": "f", "arguments": {}}', '"', "{", "}", "\\", ":", ",", " "]
    ),
    TEXT,
)
TEXTS = st.lists(PIECES, max_size=5).map("".join)


@settings(max_examples=300)
@given(TEXTS)
def test_calls_are_those_of_the_twin(text: str) -> None:
    found, expected = find_tool_calls(text), naive_tool_call.find(text)
    got = [{"name": c.name, "arguments": c.arguments, "span": c.span, "body": c.body} for c in found]
    assert json.dumps(got) == json.dumps(expected)


@settings(max_examples=200)
@given(TEXTS)
def test_spans_cover_what_they_name(text: str) -> None:
    for call in find_tool_calls(text):
        assert json.loads('"' + text[slice(*call.name_span)] + '"') == call.name
        assert json.loads(text[slice(*call.arguments_span)]) == call.arguments
        keys = [json.loads('"' + text[slice(*span)] + '"') for span in call.key_spans]
        values = [json.loads(text[slice(*span)]) for span in call.value_spans]
        assert dict(zip(keys, values, strict=True)) == call.arguments
        assert text[slice(*call.body)][0] + text[slice(*call.body)][-1] == "{}"


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


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": draw(st.dictionaries(NAMES, PROPERTY, max_size=3)),
        "required": draw(st.lists(NAMES, max_size=2, unique=True)),
        "$defs": {"positive": {"type": "integer", "exclusiveMinimum": 0}},
    }
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    return schema


@settings(max_examples=300)
@given(schemas(), st.dictionaries(NAMES, VALUES, max_size=3), st.booleans())
def test_verdicts_are_those_of_jsonschema(
    schema: dict[str, Any], arguments: dict[str, Any], openai: bool
) -> None:
    function = {"name": "f", "description": "d", "parameters": schema}
    tools = [{"type": "function", "function": function}] if openai else [function]
    text = f"<tool_call>{json.dumps({'name': 'f', 'arguments': arguments})}</tool_call>"
    compiled = ToolSchema(tools)
    expected = jsonschema.Draft202012Validator(schema).is_valid(arguments)
    (call,) = find_tool_calls(text)
    assert compiled.is_valid(call) == expected
    assert (compiled.issues(call) == []) == expected
    assert is_valid_tool_json(text, compiled) == expected
    assert required_fields_present(text, tools) == all(name in arguments for name in schema["required"])
