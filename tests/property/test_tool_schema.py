"""Verdicts of ToolSchema against json and jsonschema, in every format."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import naive_tool_call
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_call_texts import (
    JSON,
)

from kdfast import compute_required_fields_present
from kdfast._rust import (
    ToolCallStream,
    ToolSchema,
    find_tool_calls,
    is_valid_tool_json,
    required_fields_present,
)

NAMES = st.sampled_from(["a", "b", "c", "", "é", "a longer name than usual", "a longer name than unusual"])
TYPES = st.sampled_from(["null", "boolean", "number", "integer", "string", "array", "object"])
CHOICES = st.lists(
    st.sampled_from(["a", "é", "abc", 1, 1.5, 0, True, None, [], ["x"], {"a": 1}]), min_size=1, max_size=4
)


def usual_object(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    """An object's schema, in which some of the keywords stand."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": draw(st.dictionaries(NAMES, inner, max_size=3)),
        "required": draw(st.lists(NAMES, max_size=2, unique=True)),
        "additionalProperties": draw(inner),
    }
    dropped = draw(st.sets(st.sampled_from(sorted(schema)), max_size=3))
    return {key: value for key, value in schema.items() if key not in dropped}


# What ToolSchema judges itself ...
USUAL: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.sampled_from([True, False, {}, {"title": "t", "default": 1, "description": "d", "examples": [1]}]),
        st.builds(lambda kind: {"type": kind}, st.one_of(TYPES, st.lists(TYPES, min_size=1, unique=True))),
        st.builds(lambda choices: {"enum": choices}, CHOICES),
        st.builds(lambda kind, choices: {"type": kind, "enum": choices}, TYPES, CHOICES),
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda items: {"items": items}, inner),
        st.builds(lambda schemas: {"anyOf": schemas}, st.lists(inner, min_size=1, max_size=3)),
        st.composite(usual_object)(inner),
    ),
    max_leaves=6,
)
# ... and what it has a library for.
UNUSUAL = st.sampled_from(
    [
        {"type": "integer", "minimum": 0},
        {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^a"}]},
        {"type": "array", "uniqueItems": True},
        {"const": 1},
        {"type": "string", "format": "email"},
        {"$ref": "#/$defs/positive"},
    ]
)
VALUES = st.one_of(
    JSON,
    st.sampled_from(
        ["a", "é", "abc", 1, 0, -1, 2.0, 1.5, 1e300, True, None, [], ["x"], {"a": 1}, {"b": "1"}, {}]
    ),
    st.dictionaries(NAMES, st.one_of(JSON, st.lists(st.sampled_from(["a", 1, 1.0])))),
)
DRAFTS = {
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
    None: jsonschema.Draft202012Validator,
}


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    properties = USUAL if draw(st.booleans()) else st.one_of(USUAL, UNUSUAL)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": draw(st.dictionaries(NAMES, properties, max_size=3)),
        "required": draw(st.lists(NAMES, max_size=2, unique=True)),
    }
    if "#/$defs/positive" in json.dumps(schema):
        schema["$defs"] = {"positive": {"type": "integer", "exclusiveMinimum": 0}}
    if draft := draw(st.sampled_from(list(DRAFTS))):
        schema["$schema"] = draft
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(USUAL)
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
        "granite": f"<tool_call>\n{dumps(function)}\n</tool_call>",
        "mistral": f"[TOOL_CALLS] {dumps([body])}",
        "llama3": f"<|python_tag|>{dumps({'name': name, 'parameters': arguments})}",
        "fenced": f"```json\n{dumps(body, 2)}\n```",
        "array": dumps([body]),
        "object": dumps(body),
        "openai": dumps(message),
    }[kind]


@pytest.mark.slow
@settings(max_examples=800)
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
    assert required_fields_present(text, tools, ["hermes"]) == (required and kind == "hermes")
