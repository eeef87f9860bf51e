"""The slow, obvious way to find tool calls."""

from __future__ import annotations

import json
from typing import Any

OPENING, CLOSING = "<tool_call>", "</tool_call>"


def find(text: str) -> list[dict[str, Any]]:
    """Every complete call: name, arguments and the text of the call."""
    calls, at = [], text.find(OPENING)
    while at >= 0:
        call = _call_at(text, at)
        if call:
            calls.append(call)
        at = text.find(OPENING, call["span"][1] if call else at + len(OPENING))
    return calls


def _call_at(text: str, start: int) -> dict[str, Any] | None:
    body_start = _skip_space(text, start + len(OPENING))
    try:
        body, body_end = json.JSONDecoder(parse_constant=_refuse).raw_decode(text, body_start)
        json.dumps(body, ensure_ascii=False).encode()  # lone surrogates are refused
    except (ValueError, RecursionError):
        return None
    end = _skip_space(text, body_end)
    if not text.startswith(CLOSING, end) or not isinstance(body, dict):
        return None
    name, arguments = body.get("name"), body.get("arguments")
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return {
        "name": name,
        "arguments": arguments,
        "span": (start, end + len(CLOSING)),
        "body": (body_start, body_end),
    }


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \n\r\t":
        at += 1
    return at


def _refuse(constant: str) -> None:
    raise ValueError(constant)
