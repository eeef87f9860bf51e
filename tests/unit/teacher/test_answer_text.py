"""Calls in texts of every format: which text stands before them, and whether anything stands after them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast._rust import ToolSchema, tool_call_formats
from kdfast.teacher.answer_text import calls_in, hermes_text, said, schema_fault, structured_calls

F = '{"name": "f", "arguments": {"a": 1}}'
G = '{"name": "g", "arguments": {}}'
BOTH = (("f", {"a": 1}), ("g", {}))
WRAPPED = '{"type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}'


def message(text: str, formats: list[str] | None = None) -> Any:
    return calls_in(text, formats or tool_call_formats(), None).message()


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (f"<tool_call>{F}</tool_call>\n<tool_call>\n{G}\n</tool_call>\n", BOTH),
        (f"[TOOL_CALLS][{F}, {G}]", BOTH),
        (f"[TOOL_CALLS] [ {F} ]", BOTH[:1]),
        (f"[TOOL_CALLS]{F}", BOTH[:1]),
        (f"<|python_tag|>{F}", BOTH[:1]),
        ('<|python_tag|>{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}', BOTH),
        (f"```json\n{F}\n```", BOTH[:1]),
        (f"```json\n[{F},\n {G}]\n```\n", BOTH),
        (f"[{F}, {G}]", BOTH),
        (F, BOTH[:1]),
        (f'{{"tool_calls": [{WRAPPED}]}}', BOTH[:1]),
        (WRAPPED, BOTH[:1]),
    ],
)
@pytest.mark.parametrize("before", ["", "Naïve: 😀.", " Two\n\nlines"])
def test_calls_at_the_end(text: str, calls: Any, before: str) -> None:
    made = message(f"{before}\n{text}")
    assert structured_calls(made) == calls
    assert made["content"] == (before or None)


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{F}</tool_call> There.",
        f"<tool_call>{F}</tool_call> and <tool_call>{G}</tool_call>",
        f"[TOOL_CALLS][{F}] There.",
        f"[{F}, 3, {G}]",
        f"```json\n{F}\n```\nThere.",
        "No call.",
        "",
    ],
)
def test_calls_with_other_text_are_no_message(text: str) -> None:
    assert message(text) is None


def test_a_long_run_of_spaces_before_an_array() -> None:
    assert message(f"x{' ' * 200_000}[{F}]")["content"] == "x"


@given(st.text("ab</_c>\n\"'\\é😀[`{", max_size=20), st.text('f.<"é', min_size=1, max_size=5))
def test_every_call_as_text_is_found_whole(value: str, name: str) -> None:
    found = calls_in(hermes_text(name, {"a": value, value: None}), ["hermes"], None)
    assert found.attempts == []
    assert [(call.name, call.arguments) for call in found.found] == [(name, {"a": value, value: None})]


def test_what_breaks_a_schema() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = ToolSchema([{"name": "f", "parameters": parameters}])
    assert schema_fault([("f", {"a": 1}), ("f", {})], schema) == ""
    assert schema_fault([("f", {"a": 1}), ("f", {"a": "x"})], schema).startswith("f: /arguments/a: ")
    assert schema_fault([("g", {})], schema).startswith('g: /name: unknown tool "g"')
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    assert schema_fault([("f", {"a": deep})], schema) == "f: the arguments are nested too deeply"


def test_said_for_people() -> None:
    calls = [
        {"function": {"name": "f", "arguments": {"a": "é"}}},
        {"function": {"name": "g", "arguments": {}}},
    ]
    assert said({"content": "Hm.", "tool_calls": calls}) == 'Hm.\nf({"a": "é"})\ng({})'
    assert said({"content": None, "tool_calls": calls[1:]}) == "g({})"
    assert said(json.loads('{"role": "assistant", "content": "x"}')) == "x"
