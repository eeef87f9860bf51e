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
