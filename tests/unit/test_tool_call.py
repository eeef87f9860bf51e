"""Tool calls: what counts as one, and what is said about a bad one."""

from __future__ import annotations

import json
import pickle
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from kdfast._rust import (
    ToolCallStream,
    ToolSchema,
    find_tool_calls,
    is_valid_tool_json,
    is_valid_tool_json_each,
    looks_like_tool_json,
    required_fields_present,
)
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
        '{"name": "weather"}',
        '{"name": "weather", "arguments": {}',
        '[{"name": "weather", "arguments": {}}, {}]',
        '```json\n{"name": "weather", "arguments": {}}\n',
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


OBJECT = '{"name": "weather", "arguments": {"city": "Rome"}}'
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
    with pytest.raises(ValueError, match=r'formats must be among hermes, mistral, .*, got "xml"'):
        find_tool_calls("", ["hermes", "xml"])


# ---------------------------------------------------------------- schemas


def test_batches_say_what_single_questions_say() -> None:
    schema = ToolSchema([WEATHER])
    texts = [call('{"city": "x"}'), call("{}"), "none", call('{"city": 1}') + call("{}", name="f")]
    subjects = [*texts, *find_tool_calls(texts[0])]
    assert schema.is_valid_batch(subjects) == [schema.is_valid(subject) for subject in subjects]
    assert schema.validate_batch(subjects) == [schema.issues(subject) for subject in subjects]
    assert schema.is_valid_batch([]) == []


def test_many_texts_have_a_schema_each() -> None:
    good, bad = call('{"city": "x"}'), call('{"city": 1}')
    nobody = call("{}", name="nobody")
    texts, schemas = (
        [good, bad, nobody, nobody, ""],
        [[WEATHER], ToolSchema([WEATHER]), None, [WEATHER], None],
    )
    expected = [is_valid_tool_json(text, schema) for text, schema in zip(texts, schemas, strict=True)]
    assert is_valid_tool_json_each(texts, schemas) == expected == [True, False, True, False, False]
    for threads in (0, 1, 3):
        many = is_valid_tool_json_each(texts * 1000, schemas * 1000, threads=threads)
        assert many == expected * 1000
    assert is_valid_tool_json_each([good], [None], ["mistral"]) == [False]
    assert is_valid_tool_json_each([], []) == []
    with pytest.raises(ValueError, match="schemas must have one entry for each of the 1 texts, got 0"):
        is_valid_tool_json_each([good], [])


def issue_of(parameters: dict[str, Any], arguments: dict[str, Any]) -> dict[str, str]:
    (issue,) = ToolSchema([{"name": "f", "parameters": parameters}]).issues(
        find_tool_calls(json.dumps({"name": "f", "arguments": arguments}))[0]
    )
    return issue


def test_an_issue_names_its_places_in_instance_and_schema() -> None:
    parameters = {
        "properties": {"a": {"items": {"$ref": "#/$defs/small"}}},
        "$defs": {"small": {"maximum": 3}},
    }
    assert issue_of(parameters, {"a": [1, 7]}) == {
        "instance_path": "/arguments/a/1",
        "schema_path": "/$defs/small/maximum",
        "message": "7 is greater than the maximum of 3",
    }
    missing = issue_of({"properties": {"a": {"required": ["x"]}}}, {"a": {}})
    assert (missing["instance_path"], missing["message"]) == ("/arguments/a", 'the argument "x" is missing')
    surplus = issue_of({"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1, "b": 2, "c": 3})
    assert surplus["message"] == "unexpected arguments: b, c"


@pytest.mark.parametrize(
    ("draft", "schema", "good", "bad"),
    [
        ("http://json-schema.org/draft-07/schema#", {"items": [{"type": "string"}]}, ["a", 1], [1]),
        ("http://json-schema.org/draft-07/schema#", {"prefixItems": [{"type": "string"}]}, [1], None),
        ("http://json-schema.org/draft-07/schema#", {"if": {"const": 1}, "then": False}, 2, 1),
        ("https://json-schema.org/draft/2019-09/schema", {"items": [{"type": "string"}]}, ["a", 1], [1]),
        (
            "https://json-schema.org/draft/2019-09/schema",
            {"dependentRequired": {"a": ["b"]}},
            {"b": 1},
            {"a": 1},
        ),
        (
            "https://json-schema.org/draft/2020-12/schema",
            {"prefixItems": [{"type": "string"}]},
            ["a", 1],
            [1],
        ),
        (None, {"prefixItems": [{"type": "string"}]}, ["a", 1], [1]),
    ],
)
def test_drafts_are_told_apart(draft: str | None, schema: dict[str, Any], good: object, bad: object) -> None:
    parameters: dict[str, Any] = {"properties": {"a": schema}}
    if draft:
        parameters["$schema"] = draft
    tools = ToolSchema([{"name": "f", "parameters": parameters}])

    def valid(value: object) -> bool:
        return tools.is_valid(json.dumps({"name": "f", "arguments": {"a": value}}))

    assert valid(good)
    assert bad is None or not valid(bad)


def test_no_reference_is_ever_fetched(tmp_path: Path) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    (tmp_path / "x.json").write_text('{"type": "string"}')
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x.json"
        for reference in (address, f"{address}#/a", (tmp_path / "x.json").as_uri(), "x.json"):
            for parameters in (
                {"$ref": reference},
                {"properties": {"a": {"$ref": reference}}},
                {"$schema": reference},
            ):
                with pytest.raises(SchemaError, match='tool "f"'):
                    ToolSchema([{"name": "f", "parameters": parameters}])
        server.shutdown()
    assert asked == []


def test_the_gil_is_free_while_a_batch_is_validated() -> None:
    schema, texts = ToolSchema([WEATHER]), [call('{"city": "x"}')] * 200_000
    counted, done = 0, threading.Event()

    def work() -> None:
        schema.is_valid_batch(texts)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        counted += 1
        time.sleep(0)
    thread.join()
    assert counted > 10


# ---------------------------------------------------------------- what could become a call


@pytest.mark.parametrize(
    ("prefix", "could"),
    [
        ("", True),
        ("  ", True),
        ("<tool_", True),
        ('{"na', True),
        ('{"name": "weather", "arguments": {"city": "Ro', True),
        ('{"name": 5', True),  # the key may be repeated
        (f"[{OBJECT}, ", True),
        (call('{"city": "x"}') + "\n<", True),
        (call('{"city": "x"}') + "```[", True),
        (call('{"city": "x"}') + "```[]", False),  # prose, as it holds no call
        ('<tool_call>{"city": "Rome"} ', False),
        ("```js", True),
        ("Sure, ", False),
        ("{]", False),
        ('{"city": "Rome"}', False),
        ('{"name": "wether", "arguments": {}}', False),
        (f"[{OBJECT}, 1", False),
        (OBJECT + " done", False),
        ("<tool_call>Rome", False),
    ],
)
def test_beginnings(prefix: str, could: bool) -> None:
    assert looks_like_tool_json(prefix, [WEATHER]) == could


# ---------------------------------------------------------------- the stream


def test_a_stream_says_where_the_call_was_complete() -> None:
    text = "Très bien: " + call('{"city": "Zürich 😀"}')
    data = text.encode()
    stream = ToolCallStream([WEATHER])
    states = []
    for byte in data:
        stream.feed(bytes([byte]))
        states.append(stream.state)
    brace = len(data) - len("}\n</tool_call>")
    assert stream.complete_at_byte == brace
    assert stream.name_at_byte == data.index(b'", "arg')
    assert (stream.complete_at_token, stream.name_at_token) == (None, None)
    opened = data.index(b"<tool_call>") + len("<tool_call>") - 1
    assert states == ["prose"] * opened + ["inside"] * (brace - opened) + ["complete"] * (len(data) - brace)
    (found,) = stream.calls
    assert (found.arguments, found.closed) == ({"city": "Zürich 😀"}, True)
    assert data[slice(*found.span)].decode() == call('{"city": "Zürich 😀"}')


def test_a_stream_waits_for_a_call_that_is_valid() -> None:
    bad, good = call("{}"), call('{"city": "x"}')
    stream = ToolCallStream([WEATHER])
    assert not stream.feed(bad.encode())
    assert (stream.state, stream.complete_at_byte, len(stream.calls)) == ("prose", None, 1)
    assert not stream.feed(good[:20].encode())
    assert stream.feed(good[20:].encode())
    assert (stream.state, len(stream.calls)) == ("complete", 2)
    assert stream.feed(b"and more")
    assert stream.complete_at_byte == len(bad) + good.rindex("}")


def test_further_calls_are_announced() -> None:
    stream = ToolCallStream()
    seen = []
    for piece in ("[", OBJECT, ", ", OBJECT[:-1], "}", "]"):
        stream.feed(piece.encode())
        seen.append((stream.state, stream.more_expected))
    assert seen[1:] == [
        ("complete", True),
        ("complete", True),
        ("inside", True),
        ("complete", True),
        ("complete", False),
    ]


def test_a_call_that_is_too_long_ends_the_stream() -> None:
    stream = ToolCallStream(max_call_bytes=100)
    stream.feed(b"x" * 1000 + b'{"name": "')
    assert stream.state == "inside"
    stream.feed(b"x" * 100)
    assert stream.state == "impossible"
    stream.feed(OBJECT.encode())
    assert (stream.state, stream.calls) == ("impossible", [])


def test_tokens_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="tokenizer must be given"):
        ToolCallStream().feed_tokens([1])


def test_time_is_linear_in_the_text() -> None:
    hostile = [
        '<tool_call>{"a":',
        "<tool_call>{",
        '<tool_call>{"',
        "<tool_call>[",
        '<tool_call>{"a":["',
        "[",
        "{",
        '["',
    ]
    hostile += [
        '{"a":',
        '{"a":[',
        "```",
        "`",
        "[TOOL_CALLS",
        '{"a": "{',
        '[{},"',
        "[1],",
        '{"tool_calls":[',
        "[[]",
    ]
    for piece in hostile:
        for text in (
            piece * 100_000,
            piece * 100 + '"' + "x" * 1_000_000 + "\n",
            "[" * 127 + piece * 100_000 + "!",
        ):
            start = time.perf_counter()
            find_tool_calls(text)
            stream = ToolCallStream(max_call_bytes=1 << 30)
            stream.feed(text.encode())
            assert time.perf_counter() - start < 20
