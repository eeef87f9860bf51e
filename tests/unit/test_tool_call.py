"""Tool calls: what counts as one, and what is said about a bad one."""

from __future__ import annotations

import pickle
import time

import pytest

from kdfast._rust import ToolSchema, find_tool_calls, is_valid_tool_json, required_fields_present
from kdfast.errors import SchemaError, ToolCallError

WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def call(arguments: str, name: str = "weather") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def test_spans_count_characters() -> None:
    text = "Très bien 😀: " + call('{"city": "Zürich", "days": 2}') + " voilà"
    (found,) = find_tool_calls(text)
    assert (found.name, found.arguments) == ("weather", {"city": "Zürich", "days": 2})
    assert text[slice(*found.name_span)] == "weather"
    assert [text[slice(*span)] for span in found.key_spans] == ["city", "days"]
    assert [text[slice(*span)] for span in found.value_spans] == ['"Zürich"', "2"]
    assert text[slice(*found.arguments_span)] == '{"city": "Zürich", "days": 2}'
    assert text[: found.span[0]] == "Très bien 😀: "
    assert text[found.span[1] :] == " voilà"


def test_braces_and_tags_inside_strings_do_not_end_a_call() -> None:
    (found,) = find_tool_calls(call(r'{"city": "}</tool_call>\"{"}'))
    assert found.arguments == {"city": '}</tool_call>"{'}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no call",
        '{"name": "weather", "arguments": {}}',
        '<tool_call>{"name": "weather"}</tool_call>',
        call("null"),
        call("[]"),
        call("{}", name=""),
        call("{}")[:-1],
        call('{"city": NaN}'),
        call("{}") + "<tool_call>{",
    ],
)
def test_texts_that_hold_no_whole_call_are_not_valid(text: str) -> None:
    assert not is_valid_tool_json(text)


def test_arguments_keep_integers_of_any_size() -> None:
    (found,) = find_tool_calls(call('{"city": "x", "days": 123456789012345678901234567890}'))
    assert found.arguments["days"] == 123456789012345678901234567890


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (call("{}"), "/0/arguments", 'the argument "city" is missing'),
        (call('{"city": "x", "town": 1}'), "/0/arguments", "unexpected arguments: town"),
        (call('{"city": "x", "days": "2"}'), "/0/arguments/days", '"2" is not of type "integer"'),
        (call("{}", name="wether"), "/0/name", 'unknown tool "wether"; known are: weather'),
        (call('{"city": "x"}') + call('{"city": 1}'), "/1/arguments/city", '1 is not of type "string"'),
        ("none", "", "no complete tool call"),
    ],
)
def test_issues_say_what_and_where(text: str, path: str, says: str) -> None:
    schema = ToolSchema([WEATHER])
    (issue,) = schema.issues(text)
    assert (issue["instance_path"], issue["message"]) == (path, says)
    with pytest.raises(ToolCallError, match="the tool call is not valid") as caught:
        schema.validate(text)
    assert caught.value.issues == [issue]
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made here
    assert (str(again), again.issues) == (str(caught.value), [issue])


def test_calls_are_validated_by_themselves_too() -> None:
    schema = ToolSchema([WEATHER])
    good, bad = find_tool_calls(call('{"city": "x"}') + call("{}"))
    schema.validate(good)
    assert (schema.is_valid(good), schema.is_valid(bad)) == (True, False)
    assert schema.issues(bad)[0]["instance_path"] == "/arguments"


def test_without_a_schema_only_the_form_counts() -> None:
    assert is_valid_tool_json(call('{"anything": []}', name="nobody"))
    assert not is_valid_tool_json(call('{"anything": []}', name="nobody"), [WEATHER])


def test_parameters_may_be_missing() -> None:
    for tool in (
        {"name": "f"},
        {"name": "f", "parameters": None},
        {"type": "function", "function": {"name": "f"}},
    ):
        assert is_valid_tool_json(call('{"x": 1}', name="f"), [tool])


def test_required_fields() -> None:
    assert required_fields_present(call('{"city": 5}'), [WEATHER])
    assert not required_fields_present(call('{"days": 5}'), [WEATHER])
    assert not required_fields_present("no call", [WEATHER])


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([{"name": "f", "parameters": {"type": "dict"}}], "parameters/type: not a valid JSON Schema"),
        ([{"name": "f", "parameters": {"$ref": "https://example.com/x.json"}}], 'tool "f"'),
        ([WEATHER, {"name": "weather"}], "already defined"),
        ([{"description": "nameless"}], "no name"),
        ("{}", "expected an array"),
    ],
)
def test_bad_definitions_are_refused(tools: object, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        ToolSchema(tools)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="tools must be a ToolSchema, a list"):
        ToolSchema(5)


def test_time_is_linear_in_the_text() -> None:
    hostile = ['<tool_call>{"a":', "<tool_call>{", '<tool_call>{"', "<tool_call>[", '<tool_call>{"a":["']
    for piece in hostile:
        text = piece * 200_000
        start = time.perf_counter()
        assert find_tool_calls(text) == []
        assert time.perf_counter() - start < 5
