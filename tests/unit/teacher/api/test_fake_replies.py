"""The fake server's calls: arguments that usual schemas allow, and the same for the same request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast import ToolSchema, find_tool_calls
from kdfast.teacher.api.fake_replies import FakeRequest, fake_answer

WORDS = st.sampled_from(["a", "b", "long name"])
SCALARS = st.one_of(
    st.builds(lambda most: {"type": "integer", "maximum": most}, st.integers(-5, 5)),
    st.builds(lambda least: {"type": "integer", "minimum": least}, st.integers(-5, 5)),
    st.builds(lambda least: {"type": "number", "exclusiveMinimum": least}, st.integers(-5, 5)),
    st.builds(lambda words: {"type": "string", "enum": words}, st.lists(WORDS, min_size=1, unique=True)),
    st.builds(lambda least: {"type": "string", "minLength": least}, st.integers(0, 60)),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(1, 9)),
    st.builds(lambda named: {"type": "string", "format": named}, st.sampled_from(["date", "email"])),
    st.sampled_from(
        [
            {"type": ["null", "boolean"]},
            {"const": 7},
            {"type": "null"},
            {},
            {"type": "string", "default": "x"},
        ]
    ),
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least},
            inner,
            st.integers(0, 3),
        ),
        st.builds(lambda first: {"anyOf": [first, {"type": "null"}]}, inner),
        st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": sorted(fields)},
            st.dictionaries(WORDS, inner, max_size=2),
        ),
    ),
    max_leaves=5,
)


def call(schema: Any, text: str = "What is the weather in Paris?") -> dict[str, Any]:
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"x": schema}, "required": ["x"]},
        },
    }
    content = {"messages": [{"role": "user", "content": text}], "tools": [tool]}
    request = FakeRequest(
        index=0,
        times_seen=0,
        method="POST",
        path="/v1/chat/completions",
        headers={},
        content=content,
        digest="d" * 64,
    )
    message = fake_answer(request)["choices"][0]["message"]
    function = message["tool_calls"][0]["function"]
    whole = {"name": function["name"], "arguments": json.loads(function["arguments"])}
    found = find_tool_calls(f"<tool_call>\n{json.dumps(whole)}\n</tool_call>")[0]
    ToolSchema(json.dumps([tool])).validate(found)
    return dict(whole["arguments"])


@given(SCHEMAS)
def test_arguments_fit_usual_schemas(schema: Any) -> None:
    assert set(call(schema)) == {"x"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Hi"),
        ({"type": "integer"}, 1),
        ({"type": "number"}, 1.5),
        ({"type": "integer", "minimum": 7}, 7),
        ({"type": "number", "maximum": -2}, -2.0),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": ["null", "string"]}, "Hi"),
        ({"oneOf": [{"type": "boolean"}, {"type": "string"}]}, True),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "examples": ["EUR"]}, "EUR"),
    ],
)
def test_the_value_is_the_simplest(schema: Any, value: Any) -> None:
    assert call(schema, "Hi") == {"x": value}
