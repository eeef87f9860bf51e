"""Messages and tools as a client of the chat API sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def api_messages(messages: Sequence[Json]) -> list[dict[str, Any]]:
    """Messages with `tool_calls` in the API's form: type, id, and arguments as JSON text.

    What a record says of a call stays as it is written. A call without an id gets one, and results without one get
    those of the calls before them, in order: the API asks for them.

    Example:
        >>> call = {"name": "f", "arguments": {"a": 1.0}}
        >>> made = api_messages([{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "3"}])
        >>> made[0]["tool_calls"]
        [{'id': 'call00001', 'type': 'function', 'function': {'name': 'f', 'arguments': '{"a": 1.0}'}}]
        >>> made[0]["content"], made[1]["tool_call_id"]
        (None, 'call00001')
    """
    made: list[dict[str, Any]] = []
    waiting: list[str] = []
    count = 0
    for message in messages:
        sent = {key: value for key, value in message.items() if value is not None and key != "tool_calls"}
        sent.setdefault("content", None)
        calls = message.get("tool_calls") or ()
        if calls:
            sent["tool_calls"] = [_call(call, count + number) for number, call in enumerate(calls, 1)]
            count += len(calls)
            waiting = [call["id"] for call in sent["tool_calls"]]
        if sent.get("role") == "tool" and waiting:
            first = waiting.pop(0)
            sent.setdefault("tool_call_id", first)
        made.append(sent)
    return made


def api_tools(tools: Sequence[Json]) -> list[dict[str, Any]]:
    """Tools in the API's form: a type and a function.

    Example:
        >>> api_tools([{"name": "f", "parameters": {}}])
        [{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}]
    """
    return [
        {**tool, "type": "function"} if "function" in tool else {"type": "function", "function": dict(tool)}
        for tool in tools
    ]


def _call(call: Json, number: int) -> dict[str, Any]:
    function = dict(
        call.get("function") or {key: value for key, value in call.items() if key not in ("id", "type")}
    )
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = arguments if arguments.strip() else "{}"
    else:
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    # Nine letters and digits: some templates refuse other ids.
    return {
        "id": call.get("id") or f"call{number:05d}",
        "type": "function",
        "function": {**function, "arguments": arguments},
    }
