"""Calls against the schemas of their tools: verdicts, issues, drafts, batches."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from weather_calls import WEATHER, call

from kdfast._rust import (
    ToolSchema,
    find_tool_calls,
    is_valid_tool_json,
    is_valid_tool_json_each,
    modern_parameters,
)
from kdfast.errors import SchemaError


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


def valid(parameters: dict[str, Any], arguments: object) -> bool:
    call = json.dumps({"name": "f", "arguments": arguments})
    return ToolSchema([{"name": "f", "parameters": parameters}]).is_valid(call)


OLDER: list[tuple[dict[str, Any], list[object], list[object], list[str]]] = [
    (
        {"properties": {"a": {"items": [{"type": "string"}, {"type": "integer"}]}}},
        [{"a": ["x", 1]}, {"a": ["x", 1, "more"]}, {"a": []}],
        [{"a": [1]}, {"a": ["x", "y"]}],
        ["properties/a/items: a list is a form before draft 2020-12; read as prefixItems"],
    ),
    (
        {"properties": {"a": {"items": [{"type": "string"}], "additionalItems": False}}},
        [{"a": ["x"]}],
        [{"a": ["x", 1]}],
        [
            "properties/a/items: a list is a form before draft 2020-12; read as prefixItems, and additionalItems "
            "as items"
        ],
    ),
    (
        {
            "properties": {
                "n": {"minimum": 3, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": True}
            }
        },
        [{"n": 3.5}, {"n": 8}],
        [{"n": 3}, {"n": 9}],
        [
            "properties/n/exclusiveMinimum: true is a form of draft 4; read as exclusiveMinimum: 3",
            "properties/n/exclusiveMaximum: true is a form of draft 4; read as exclusiveMaximum: 9",
        ],
    ),
    (
        {"properties": {"n": {"minimum": 3, "exclusiveMinimum": False, "exclusiveMaximum": True}}},
        [{"n": 3}, {"n": 99}],
        [{"n": 2}],
        [
            "properties/n/exclusiveMinimum: false is a form of draft 4; left out",
            "properties/n/exclusiveMaximum: true is a form of draft 4; left out",
        ],
    ),
    (
        {"properties": {"a": {"required": True}, "b": {"required": False}}, "required": ["c"]},
        [{"a": 1, "c": 2}],
        [{"a": 1}, {"c": 2}, {"b": 1}],
        [
            'properties/a/required: true is a form of draft 3; read as required: ["a"] beside properties',
            "properties/b/required: false is a form of draft 3; left out",
        ],
    ),
    (
        {"properties": {"a": {"items": {"type": "string", "required": True}}}},
        [{"a": ["x"]}, {}],
        [{"a": [1]}],
        ["properties/a/items/required: true is a form of draft 3; left out, as no property has it"],
    ),
    (
        {"dependencies": {"a": ["b"], "c": {"required": ["d"]}}},
        [{"a": 1, "b": 2}, {"c": 1, "d": 2}, {"b": 1}],
        [{"a": 1}, {"c": 1}],
        ["dependencies: a form before draft 2019-09; read as dependentRequired and dependentSchemas"],
    ),
    # properties that are called like keywords, and values that are no schemas
    (
        {"properties": {"items": {"type": "string"}, "required": True, "a": {"enum": [{"required": True}]}}},
        [{"items": "x", "required": 1, "a": {"required": True}}],
        [{"items": 1}, {"a": {}}],
        [],
    ),
]


@pytest.mark.parametrize(("parameters", "good", "bad", "notes"), OLDER)
def test_forms_of_older_drafts_are_read_and_said(
    parameters: dict[str, Any], good: list[object], bad: list[object], notes: list[str]
) -> None:
    assert [valid(parameters, one) for one in good] == [True] * len(good)
    assert [valid(parameters, one) for one in bad] == [False] * len(bad)
    schema = ToolSchema([{"name": "f", "parameters": parameters}])
    assert schema.notes == [f'tool "f": parameters/{note}' for note in notes]
    # what the grammar gets means the same, and is of no older draft
    modern = json.loads(modern_parameters(json.dumps(parameters)))
    assert [valid(modern, one) for one in (*good, *bad)] == [True] * len(good) + [False] * len(bad)
    assert ToolSchema([{"name": "f", "parameters": modern}]).notes == []


def test_the_notes_of_all_tools_and_no_note_twice() -> None:
    older = {"properties": {"a": {"required": True}}}
    tools = [{"name": "f", "parameters": older}, {"name": "g"}, {"name": "h", "parameters": older}]
    schema = ToolSchema([*tools, tools[0]])
    assert [note.split(":")[0] for note in schema.notes] == ['tool "f"', 'tool "h"']


def test_a_schema_that_names_its_draft_is_read_as_that_draft() -> None:
    draft_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
    bound = {"properties": {"n": {"minimum": 3, "exclusiveMinimum": True}}}
    assert [valid(draft_4 | bound, {"n": n}) for n in (3, 4)] == [False, True]
    assert ToolSchema([{"name": "f", "parameters": draft_4 | bound}]).notes == []
    newest = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    for older in (bound, {"properties": {"a": {"items": [{}]}}}, {"properties": {"a": {"required": True}}}):
        with pytest.raises(SchemaError, match='tool "f": parameters/properties/'):
            ToolSchema([{"name": "f", "parameters": newest | older}])


def test_parameters_without_older_forms_stay_the_same_text() -> None:
    for text in ('{ "properties": {"b": {}, "a": {}} }', '{"$schema": "x", "required": true}', "true"):
        assert modern_parameters(text) == text
    rewritten = modern_parameters('{"properties": {"b": {"required": true}, "a": {"type": "string"}}}')
    assert rewritten == '{"properties":{"b":{},"a":{"type":"string"}},"required":["b"]}'
    with pytest.raises(SchemaError, match="parameters: not JSON"):
        modern_parameters("{")


@pytest.mark.parametrize(
    ("draft", "checked"),
    [
        ("http://json-schema.org/draft-04/schema#", True),
        ("http://json-schema.org/draft-06/schema#", True),
        ("http://json-schema.org/draft-07/schema#", True),
        ("https://json-schema.org/draft/2019-09/schema", False),
        ("https://json-schema.org/draft/2020-12/schema", False),
        (None, False),
    ],
)
def test_where_a_format_is_checked(draft: str | None, checked: bool) -> None:
    parameters: dict[str, Any] = {"properties": {"a": {"format": "date"}, "b": {"format": "unheard-of"}}}
    if draft:
        parameters["$schema"] = draft
    assert valid(parameters, {"a": "2024-02-29"})
    assert valid(parameters, {"a": "tomorrow"}) is not checked
    assert valid(parameters, {"b": "tomorrow"})


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([{"name": "f"}, {"name": "g", "parameters": {"type": "dict"}}], 'tool "g": parameters/type'),
        ([{"name": "f"}, {"parameters": {}}], r"tools\[1\]: no name"),
        ([{"type": "function", "function": {"parameters": {}}}], r"tools\[0\]: no name"),
        ([{"name": "f", "parameters": {"properties": {"a": {"items": []}}}}], 'tool "f": .*/a/items'),
    ],
)
def test_a_bad_tool_is_named(tools: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        ToolSchema(tools)


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
