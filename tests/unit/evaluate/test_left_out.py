"""Records whose tools are no valid JSON Schema are found, and what is said about prompts is said once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdfast.errors import DataError
from kdfast.evaluate import EvalPrompt
from kdfast.evaluate.left_out import records_with_bad_tools, write_without
from kdfast.evaluate.prompts import schema_notes

BAD = [{"name": "g"}, {"name": "f", "parameters": {"type": "dict"}}]
OLDER = [{"name": "f", "parameters": {"properties": {"a": {"required": True}}}}]


def write(path: Path, *tools: list[dict[str, Any]] | None) -> Path:
    """A file with one record for each of these tools; None = a blank line."""
    records = [one and json.dumps({"prompt": "a", "truth_text": "b", "tools": one}) for one in tools]
    path.write_text("".join(f"{record or ''}\n" for record in records), encoding="utf-8")
    return path


def test_bad_tools_are_named_with_their_line(tmp_path: Path) -> None:
    found = records_with_bad_tools(write(tmp_path / "a.jsonl", OLDER, None, BAD, OLDER, [{}]))
    assert [one.to_json() for one in found] == [
        {
            "line": 3,
            "error": 'tool "f": parameters/type: not a valid JSON Schema: "dict" is not valid under any of the schemas '
            "listed in the 'anyOf' keyword",
        },
        {"line": 5, "error": "tools[0]: no name"},
    ]


def test_without_a_good_record_the_first_bad_one_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r'a\.jsonl:2: no record has tools .* first: tool "f": parameters/type'
    ):
        records_with_bad_tools(write(tmp_path / "a.jsonl", None, BAD, [{}]))


def test_other_lines_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf1\r\n2\n3")
    write_without(tmp_path / "a", {1, 3}, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"\n2\n\n"


def test_older_forms_are_said_once() -> None:
    tools = [("", 1), (json.dumps(BAD[:1]), 2), (json.dumps(OLDER), 4), (json.dumps(OLDER + BAD[:1]), 7)]
    prompts = [
        EvalPrompt(ids=[1], tools=given, reference_text="", should_call=True, line=line)
        for given, line in tools
    ]
    assert schema_notes(prompts) == [
        'line 4: tool "f": parameters/properties/a/required: true is a form of draft 3; read as required: ["a"] '
        "beside properties (2 prompts)"
    ]
