"""Files of tools as users have them: every dialect that the core reads, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdfast.errors import ConfigError, DataError
from kdfast.recipes.first_look.of_tools import read_tools

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
BARE = [{"name": "f", "parameters": PARAMETERS}]
MCP = [{"name": "f", "inputSchema": PARAMETERS}]


@pytest.mark.parametrize(
    "tools",
    [BARE, [{"type": "function", "function": BARE[0]}], MCP, {"tools": MCP, "nextCursor": None}],
    ids=["bare", "OpenAI", "MCP", "an answer of MCP"],
)
def test_dialects(tmp_path: Path, tools: Any) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps(tools), encoding="utf-8-sig")
    assert read_tools(file) == (tools["tools"] if isinstance(tools, dict) else tools)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"--tools: not JSON"),
        ('[{"name": "f"', r"--tools: not JSON"),
        ("[]", r"there is no tool in it"),
        ("{}", r"must be a JSON list of tools.*got \{\}"),
        ('"[]"', r"must be a JSON list of tools"),
        ("null", r"must be a JSON list of tools"),
        ("[1]", r"tools\[0\]: expected an object"),
        (
            '[{"name": "f", "parameters": {"type": "dict"}}]',
            r'tool "f": parameters/type: not a valid JSON Schema',
        ),
        (json.dumps(BARE + BARE), r"--tools: tools\[1\] repeats tools\[0\]; remove one: 'f'$"),
        (json.dumps([*BARE, {"name": "g"}, *BARE]), r"tools\[2\] repeats tools\[0\]"),
        (json.dumps([*BARE, *MCP]), r'tools\[1\]: a tool named "f" is already defined'),
        (
            json.dumps([*BARE, {"name": ""}]),
            r"--tools: tools\[1\]: the name is empty; give the tool one: ''$",
        ),
        ('{"tools": [{"type": "function", "function": {"name": " "}}]}', r"tools\[0\]: the name is empty"),
    ],
)
def test_refused_with_the_file_and_the_reason(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "tools.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_tools(file)
    assert caught.value.source == str(file)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--tools: no such file .*none\.json$"):
        read_tools(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"^--tools: is a directory"):
        read_tools(tmp_path)
