"""Tool calls: what counts as one, and what is said about a bad one."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import pytest
from weather_calls import OBJECT, WEATHER, call

from kdfast._rust import (
    ToolCallStream,
    ToolSchema,
    find_attempted_calls,
    find_tool_calls,
    is_valid_tool_json,
    looks_like_tool_json,
    required_fields_present,
    thinking_closing,
    tool_call_formats,
)
from kdfast.errors import SchemaError, ToolCallError
from kdfast.scoring import FORMATS


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
        '{"name": "weather"}',
        '{"name": "weather", "arguments": {}',
        '[{"name": "weather", "arguments": {}}, {}]',
        '```json\n{"name": "weather", "arguments": {}}\n',
        '<tool_call>{"city": "Rome"}</tool_call>',
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
    assert required_fields_present(call('{"city": 5}'), [WEATHER], FORMATS)
    assert not required_fields_present(call('{"days": 5}'), [WEATHER], FORMATS)
    assert not required_fields_present("no call", [WEATHER], FORMATS)


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


IN_STRING = (
    r'{"type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"R\\u006fme\"}"}}'
)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (f"<tool_call>\n{OBJECT}\n</tool_call>", "hermes"),
        (f"[TOOL_CALLS] [{OBJECT}]", "mistral"),
        (f"[TOOL_CALLS]{OBJECT}", "mistral"),
        ('<|python_tag|>{"name": "weather", "parameters": {"city": "Rome"}}', "llama3"),
        ('{"name": "weather", "parameters": {"city": "Rome"}}', "llama3"),
        (f"```json\n{OBJECT}\n```", "fenced"),
        (f"```\n[{OBJECT}]\n```", "fenced"),
        (f"[{OBJECT}]", "array"),
        (OBJECT, "object"),
        ('{"tool": "weather", "args": {"city": "Rome"}, "why": "{[asked"}', "object"),
        ('{"function": "weather", "parameters": {"city": "Rome"}}', "object"),
        (IN_STRING, "openai"),
        (f'{{"role": "assistant", "content": null, "tool_calls": [{IN_STRING}]}}', "openai"),
        ('{"tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}]}', "openai"),
    ],
)
def test_every_format_is_found_between_prose(written: str, kind: str) -> None:
    for text in (
        written,
        f'Naïve {{x}} [1] "quoted: {written} and then {{"a": 1}} ```',
        f"{written}\n{written}",
    ):
        for formats in (None, [kind]):
            calls = find_tool_calls(text, formats)
            assert {(call.format, call.name, json.dumps(call.arguments)) for call in calls} == {
                (kind, "weather", '{"city": "Rome"}')
            }
            assert len(calls) == text.count("weather")
            assert calls[0].closed
            stream = ToolCallStream([WEATHER], formats)
            stream.feed(text.encode())
            assert [call.name for call in stream.calls] == [call.name for call in calls]
    assert is_valid_tool_json(written, [WEATHER])
    assert find_tool_calls(written, [other for other in ("hermes", "mistral") if other != kind]) == []


def test_spans_of_arguments_in_a_string_are_those_of_the_text() -> None:
    text = f"é {IN_STRING}"
    (call,) = find_tool_calls(text)
    assert text[slice(*call.arguments_span)] == r"{\"city\": \"R\\u006fme\"}"
    assert [text[slice(*span)] for span in (*call.key_spans, *call.value_spans)] == [
        "city",
        r"\"R\\u006fme\"",
    ]
    assert text[slice(*call.span)] == IN_STRING


def test_parallel_calls_are_found_one_by_one() -> None:
    text = f"[{OBJECT}, {OBJECT.replace('Rome', 'Oslo')}]"
    first, second = find_tool_calls(text)
    assert (first.arguments["city"], second.arguments["city"]) == ("Rome", "Oslo")
    assert [text[slice(*call.span)] for call in (first, second)] == [OBJECT, OBJECT.replace("Rome", "Oslo")]


def test_of_several_candidates_only_calls_count() -> None:
    text = f'{{"city": "Rome"}} or [1, 2] or {{not json}} or {{"a": {OBJECT}}} or {OBJECT}'
    (call,) = find_tool_calls(text)
    assert text[call.span[0] :] == OBJECT


def test_nesting_ends_at_the_limit() -> None:
    def nested(depth: int) -> str:
        return '{"name": "f", "arguments": {"a": ' + "[" * (depth - 2) + "]" * (depth - 2) + "}}"

    assert len(find_tool_calls(nested(128))) == 1
    assert find_tool_calls(nested(129)) == []
    assert len(find_tool_calls(nested(5000) + OBJECT)) == 1


def test_calls_that_are_not_closed_are_found_on_demand() -> None:
    text = f"<tool_call>{OBJECT}"
    assert find_tool_calls(text) == []
    (call,) = find_tool_calls(text, unclosed=True)
    assert (call.closed, call.span) == (False, (0, len(text)))


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match=r'formats must be among hermes, granite, mistral, .*, got "xml"'):
        find_tool_calls("", ["hermes", "xml"])


@pytest.mark.parametrize(
    ("prefix", "could"),
    [
        ("", True),
        ("<tool_", True),
        ('{"na', True),
        ('{"name": "weather", "arguments": {"city": "Ro', True),
        ('{"name": 5', True),  # the key may be repeated
        (f"[{OBJECT}, ", True),
        (call('{"city": "x"}') + "\n<", True),
        (call('{"city": "x"}') + "```[]", True),  # prose around a call does not matter
        (f"{OBJECT};{OBJECT[:-9]}", True),
        ("Sure, ", True),
        ('{]{"city": "Rome"}', True),
        (OBJECT + " done", True),
        ("<tool_call>Rome", True),  # the mark may only be spoken of
        ("<think><tool_call>{]", True),
        ('<tool_call>{"city": "Rome"} ', False),
        ("<tool_call>{]", False),
        ("<tool_call>[", False),
        ("<tool_call><function=weather>", False),
        ('{"name": "wether", "arguments": {}}', False),
        (f"[{OBJECT}, 1", False),
        (call('{"city": "x"}') + call('{"city": 1}'), False),
    ],
)
def test_beginnings(prefix: str, could: bool) -> None:
    assert looks_like_tool_json(prefix, [WEATHER]) == could


@pytest.mark.parametrize(
    "body", [f"{OBJECT}{OBJECT}", f"{OBJECT}\n{OBJECT}", f"[{OBJECT}]", f"[{OBJECT}, {OBJECT}]"]
)
def test_two_objects_or_an_array_in_one_frame_are_no_call(body: str) -> None:
    text = f"<tool_call>{body}</tool_call>"
    for count in range(1, len(tool_call_formats()) + 1):
        for formats in itertools.combinations(tool_call_formats(), count):
            assert find_tool_calls(text, formats, unclosed=True) == []
            assert find_attempted_calls(text, formats) == [(0, "malformed")]
            assert not is_valid_tool_json(text, [WEATHER], formats)
            stream = ToolCallStream([WEATHER], formats)
            assert not stream.feed(text.encode())
            assert (stream.calls, stream.complete_at_byte) == ([], None)


def test_a_call_without_its_closing_is_not_closed() -> None:
    text = f"<tool_call>{OBJECT}\n<tool_call>{OBJECT}</tool_call><tool_call>{OBJECT}"
    assert [call.closed for call in find_tool_calls(text, unclosed=True)] == [False, True, False]
    assert len(find_tool_calls(text)) == 1
    start = text.rindex("<tool_call>")
    assert find_attempted_calls(text) == [(0, "unclosed"), (start, "unclosed")]
    assert not is_valid_tool_json(text)


def test_fewer_formats_never_give_more_calls() -> None:
    assert find_tool_calls('[1, {"name": "b", "arguments": {}}]', ["object"]) == []
    assert find_tool_calls(f"<tool_call>{OBJECT}</tool_call>", ["object"]) == []
    assert len(find_tool_calls(f"<tool_call>{OBJECT}</tool_call>", ["hermes", "object"])) == 1


def test_marks_that_are_spoken_of_break_nothing() -> None:
    found = call('{"city": "x"}')
    for text in (
        f"The <tool_call> tag: {found}",
        f"The <tool_call> and the <tool_call> tag: {found}",
        f"`<tool_call>` opens one, [TOOL_CALLS] others. {found}",
    ):
        assert len(find_tool_calls(text)) == 1
        assert is_valid_tool_json(text, [WEATHER])
        assert find_attempted_calls(text) == []


AS_TEXT = r'{"name": "weather", "arguments": "{\"city\": \"Rome\"}"}'


@pytest.mark.parametrize(
    ("text", "counts_in"),
    [
        (f"<tool_call>{AS_TEXT}</tool_call>", ["granite"]),
        (f"[TOOL_CALLS][{AS_TEXT}]", ["mistral"]),
        (f"[TOOL_CALLS]{AS_TEXT}", ["mistral"]),
        (f"<|python_tag|>{AS_TEXT}", []),
        (AS_TEXT, []),
        (f"[{AS_TEXT}]", []),
        (f'{{"function": {AS_TEXT}}}', ["openai"]),
        (f'{{"tool_calls": [{AS_TEXT}]}}', ["openai"]),
    ],
)
def test_arguments_as_text_count_where_the_format_has_them(text: str, counts_in: list[str]) -> None:
    for name in tool_call_formats():
        found = find_tool_calls(text, [name])
        assert [call.arguments for call in found] == [{"city": "Rome"}] * (name in counts_in)
        assert len(find_attempted_calls(text, [name])) == 1 - len(found)
    assert [call.format for call in find_tool_calls(text)] == counts_in


CLOCK = {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}


@pytest.mark.parametrize("nothing", ["", ', "arguments": null', ', "arguments": ""', ', "arguments": " "'])
def test_no_arguments_are_an_empty_object_where_they_may_be_left_out(nothing: str) -> None:
    def found(
        name: str, formats: list[str], tools: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        text = f'<tool_call>{{"name": "{name}"{nothing}}}</tool_call>'
        return [call.arguments for call in find_tool_calls(text, formats, tools=tools)]

    assert found("weather", ["granite"]) == [{}]
    assert found("clock", ["hermes"], [CLOCK, WEATHER]) == [{}]
    assert found("weather", ["hermes"], [CLOCK, WEATHER]) == []
    assert found("clock", ["hermes"]) == []
    assert is_valid_tool_json(f'{{"name": "clock"{nothing}}}', [CLOCK], ["object"])
    stream = ToolCallStream(formats=["hermes"], tools=[CLOCK])
    stream.feed(f'<tool_call>{{"name": "clock"{nothing}}}'.encode())
    assert [call.arguments for call in stream.calls] == [{}]


THINKING = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
]


@pytest.mark.parametrize(("opening", "closing"), THINKING)
def test_a_call_in_a_thinking_block_is_no_call(opening: str, closing: str) -> None:
    draft, final = call('{"city": "draft"}'), call('{"city": "final"}')

    def cities(text: str, thinking: str = "closed") -> list[str]:
        found = [one.arguments["city"] for one in find_tool_calls(text, thinking=thinking)]
        stream = ToolCallStream([WEATHER], thinking=thinking)
        assert stream.feed(text.encode()) == (found != [])
        assert [one.arguments["city"] for one in stream.calls] == found
        assert is_valid_tool_json(text, [WEATHER], thinking=thinking) == (found != [])
        assert find_attempted_calls(text, thinking=thinking) == []
        return found

    assert cities(f"{opening}{draft}{closing}{final}") == ["final"]
    assert cities(f"{opening}{draft}{final}") == []  # it never ends
    assert cities(f"{opening}<tool_call>{{{closing}{final}") == ["final"]
    assert cities(f"{draft}{closing}{final}", thinking="open") == ["final"]
    assert cities(final, thinking="open") == []
    assert cities(f"{final}{opening}{draft}{closing}") == ["final"]
    assert thinking_closing(f"<|im_start|>assistant\n{opening}\n") == closing
    assert thinking_closing(f"<|im_start|>assistant\n{opening}\n{closing}\n") is None
    with pytest.raises(ValueError, match=r"thinking must be 'open' or 'closed', got \"ajar\""):
        find_tool_calls(final, thinking="ajar")
