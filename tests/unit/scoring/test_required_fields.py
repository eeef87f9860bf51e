"""Whether answers give all required arguments: texts, calls and every form of `tools`."""

from __future__ import annotations

import json
import subprocess
import sys
from types import MappingProxyType
from typing import Any

import jsonschema
import naive_tool_call
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast import ToolSchema, compute_required_fields_present, find_tool_calls
from kdfast.errors import SchemaError

WEATHER = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = [WEATHER, CLOCK]


def call(name: str = "weather", **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (call(city="Rome"), True),
        ("Let me look. " + call(city=5, more=1) + " Done.", True),  # presence, not validity
        (call(days=3), False),
        (call(days={"city": "Rome"}), False),  # only the top level counts
        (call("clock"), True),
        (call("nobody", city="Rome"), False),
        (call(city="Rome") + call("clock"), True),
        (call(city="Rome") + call(days=3), False),
        (call(city="Rome") + call("clock")[:-5], False),  # cut off
        (call(city="Rome")[:-1], False),
        ('<tool_call>{"name": "weather", "arguments": "{}"}</tool_call>', False),
        ('<tool_call>{"name": "clock"}</tool_call>', True),  # it takes none
        ('<tool_call>{"name": "weather"}</tool_call>', False),
        ("The <tool_call> tag: " + call(city="Rome"), True),
        ("<think>" + call(days=3) + "</think>" + call(city="Rome"), True),
        ('{"name": "weather", "arguments": {"city": "Rome"}}', False),  # no call without its tags
        ("It rains.", False),
        ("", False),
    ],
)
def test_texts(text: str, expected: bool) -> None:
    assert compute_required_fields_present([text], TOOLS) == [expected]


@pytest.mark.parametrize(
    ("parsed", "expected"),
    [
        ({"name": "weather", "arguments": {"city": None}}, True),
        (MappingProxyType({"name": "weather", "arguments": MappingProxyType({"city": 1})}), True),
        ({"name": "weather", "arguments": {"days": 1}}, False),
        ({"name": "weather", "arguments": {1: 2}}, False),
        ({"name": "nobody", "arguments": {"city": 1}}, False),
    ],
)
def test_parsed_calls(parsed: Any, expected: bool) -> None:
    assert compute_required_fields_present([parsed], TOOLS) == [expected]
    assert compute_required_fields_present([parsed], None) == [True]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"name": "clock"},
        {"arguments": {}},
        {"name": "", "arguments": {}},
        {"name": 1, "arguments": {}},
        {"name": "clock", "arguments": "{}"},
        {"name": "clock", "arguments": None},
    ],
)
def test_calls_that_are_none(broken: dict[str, Any]) -> None:
    assert compute_required_fields_present([broken], TOOLS) == [False]
    assert compute_required_fields_present([broken], None) == [False]


def test_found_calls() -> None:
    found = find_tool_calls(call(city="Rome") + call(days=1))
    assert compute_required_fields_present(found, TOOLS) == [True, False]
    assert compute_required_fields_present(found, None) == [True, True]


def test_tools_for_all_or_for_each() -> None:
    texts = [call(city="Rome"), call(days=1), "no", call("clock")]
    expected = [True, False, False, True]
    for tools in (TOOLS, tuple(TOOLS), json.dumps(TOOLS), ToolSchema(TOOLS)):
        assert compute_required_fields_present(texts, tools) == expected
        assert compute_required_fields_present(texts, [tools] * 4) == expected
    assert compute_required_fields_present(texts, None) == [True, True, False, True]
    assert compute_required_fields_present(texts, [None] * 4) == [True, True, False, True]
    assert compute_required_fields_present(texts, [[CLOCK], None, None, [WEATHER]]) == [
        False,
        True,
        False,
        False,
    ]
    assert compute_required_fields_present(texts, []) == [False] * 4  # known to have no tools
    assert compute_required_fields_present(texts[:1], [[]]) == [False]
    assert compute_required_fields_present([], TOOLS) == []
    assert compute_required_fields_present([], []) == []


def test_bad_arguments_are_named() -> None:
    text = call(city="Rome")
    with pytest.raises(ValueError, match="one entry for each of the 2 texts, got 1"):
        compute_required_fields_present([text, text], [None])
    with pytest.raises(TypeError, match="one entry for each answer, got one str"):
        compute_required_fields_present(text, TOOLS)
    with pytest.raises(TypeError, match=r"texts must hold a text, a ToolCall or an object .* got .*int"):
        compute_required_fields_present([text, 7], TOOLS)  # type: ignore[list-item]
    for entry in (7, [7], WEATHER):
        with pytest.raises(TypeError, match="tools must hold tool definitions or None for each text, got"):
            compute_required_fields_present([text, text], [None, entry])  # type: ignore[list-item]
    broken = {"name": "f", "parameters": {"type": "dict"}}
    for tools in ([broken], [[broken]]):
        with pytest.raises(SchemaError, match="not a valid JSON Schema"):
            compute_required_fields_present([text], tools)  # type: ignore[arg-type]


def test_neither_torch_nor_transformers_is_loaded() -> None:
    code = (
        "import kdfast, sys; kdfast.compute_required_fields_present([''], None); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


NAMES = st.sampled_from(["a", "b", "é", 'q"\\', "x\u2028"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
TOOL = st.builds(
    lambda name, required: {"name": name, "parameters": {"type": "object", "required": required}},
    st.sampled_from(["f", "g"]),
    st.lists(NAMES, unique=True, max_size=2),
)
TOOL_SETS = st.lists(TOOL, max_size=2, unique_by=lambda tool: tool["name"])
CALL = st.builds(
    lambda name, arguments, ascii_only: (
        "<tool_call>\n"
        + json.dumps({"name": name, "arguments": arguments}, ensure_ascii=ascii_only)
        + "\n</tool_call>"
    ),
    st.sampled_from(["f", "g", "h", ""]),
    st.dictionaries(NAMES, VALUES, max_size=3) | VALUES,
    st.booleans(),
)
PIECE = (
    CALL
    | CALL.map(lambda text: text[:-12])
    | st.sampled_from(["", " ok ", "<tool_call>", "</tool_call>", "{}"])
)
TEXT = st.lists(PIECE, max_size=3).map("".join)


def slow(text: str, tools: list[dict[str, Any]] | None) -> bool:
    """The rule, said once more: JSON by `json`, `required` by jsonschema."""
    calls, attempts = naive_tool_call.read(text, ("hermes",), tools=tools)
    tagged = [at for at, _ in attempts if text[at:].startswith("<tool_call>"[: len(text) - at])]
    if not calls or tagged:
        return False
    if tools is None:
        return True
    required = {tool["name"]: {"required": tool["parameters"]["required"]} for tool in tools}
    return all(
        found["name"] in required
        and jsonschema.Draft202012Validator(required[found["name"]]).is_valid(found["arguments"])
        for found in calls
    )


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.tuples(TEXT, st.none() | TOOL_SETS), max_size=4), TOOL_SETS)
def test_equal_to_the_slow_twin(
    pairs: list[tuple[str, list[dict[str, Any]] | None]], shared: list[dict[str, Any]]
) -> None:
    texts = [text for text, _ in pairs]
    assert compute_required_fields_present(texts, [tools for _, tools in pairs]) == [
        slow(text, tools) for text, tools in pairs
    ]
    assert compute_required_fields_present(texts, shared) == [slow(text, shared) for text in texts]
    calls = [found for text in texts for found in naive_tool_call.find(text, ("hermes",))]
    parsed = [{"name": found["name"], "arguments": found["arguments"]} for found in calls]
    again = [f"<tool_call>{json.dumps(found)}</tool_call>" for found in parsed]
    assert compute_required_fields_present(parsed, shared) == compute_required_fields_present(again, shared)


def test_another_format_counts_where_it_is_named():
    text = '[TOOL_CALLS][{"name": "f", "arguments": {}}]'
    assert compute_required_fields_present([text], None) == [False]
    assert compute_required_fields_present([text], None, ["mistral"]) == [True]
