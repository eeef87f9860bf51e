"""Small datasets and their stores, for tests of code that reads stores."""

import json
from pathlib import Path
from typing import Any

import tiny
from defaults import build_store

from kdfast import _rust

HERMES = Path(__file__).parents[2] / "python/kdfast/templates/hermes.jinja"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]


def call(**arguments: Any) -> str:
    """A call of `add` as the template writes it."""
    return f'<tool_call>\n{{"name": "add", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def message(**arguments: Any) -> dict[str, Any]:
    """A call of `add` as an assistant message."""
    function = {"name": "add", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}


def user(text: str) -> dict[str, Any]:
    """A user message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    """An assistant message."""
    return {"role": "assistant", "content": text}


RECORDS: list[dict[str, Any]] = [
    {"messages": [user("1 + 2?")], "tools": TOOLS, "teacher_text": call(a=1, b=2)},
    {
        "messages": [user("20 + 2?")],
        "tools": TOOLS,
        "truth_message": message(a=20, b=2),
        "metadata": {"id": "x"},
    },
    {"prompt": "Say 東京, naïve 😀: ", "teacher_text": "東京, naïve 😀"},
    {
        "messages": [
            {"role": "system", "content": "Be short."},
            user("Hello?"),
            assistant("Hello."),
            user("1 + 1?"),
            message(a=1, b=1),
            {"role": "tool", "content": "2"},
            assistant("It is 2."),
            user("And 2 + 2?"),
        ],
        "tools": TOOLS,
        "teacher_text": "Let me see. " + call(a=2, b=2) + "\n" + call(a=3, b=3),
        "truth_text": call(a=2, b=2),
    },
    {"prompt": "Cut: ", "teacher_text": "this answer was", "finish_reason": "length"},
]


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write a dataset."""
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
    )
    return path


def hermes() -> _rust.ChatTemplate:
    """kdfast's own template."""
    return _rust.ChatTemplate(HERMES.read_text(encoding="utf-8"))


def build(
    directory: Path,
    records: list[dict[str, Any]] | None = None,
    *,
    template: _rust.ChatTemplate | None = None,
    **options: Any,
) -> _rust.TokenStore:
    """A token store of `records` in `directory`, with a tokenizer made there."""
    if not (directory / "tokenizer.json").exists():
        tiny.write_tokenizer(directory)
    path = write_records(directory / "data.jsonl", RECORDS if records is None else records)
    tokenizer = _rust.Tokenizer.from_file(directory)
    report = build_store(path, directory / "cache", tokenizer, template or hermes(), **options)
    return _rust.TokenStore.open(report.path)
