"""Small records of a home, enough of them to learn a tokenizer from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Set the brightness of a light.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "brightness": {"type": "integer"}},
            "required": ["room"],
        },
    },
}
ROOMS = ("kitchen", "bathroom", "living room", "corridor", "garage", "Küche", "客厅")


def answered(number: int) -> dict[str, Any]:
    """A question with a call, or with a text for every fifth."""
    room = ROOMS[number % len(ROOMS)]
    question = {"role": "user", "content": f"set the {room} light to {number} percent"}
    arguments = {"room": room, "brightness": number}
    call = {"type": "function", "function": {"name": "set_light", "arguments": arguments}}
    answer: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
    if number % 5 == 0:
        question["content"], answer = f"hello number {number} 😀", {"role": "assistant", "content": "Hello!"}
    return {"messages": [question], "tools": [LIGHT], "teacher_message": answer}


def asked(number: int) -> dict[str, Any]:
    """The same without its answer."""
    return {key: value for key, value in answered(number).items() if key != "teacher_message"}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Writes lines of JSON."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path
