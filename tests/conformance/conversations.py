"""Conversations as users write them: nulls, parts, parallel calls, results, arguments in every form."""

from __future__ import annotations

import json
from typing import Any

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name."},
                    "days": {"type": "integer", "description": "How many days.", "default": 1},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "send",
            "description": "Sends a text.",
            "parameters": {
                "type": "object",
                "properties": {"to": {"type": "array", "items": {"type": "string"}}},
            },
        },
    },
]


def user(content: Any = "Is it raining in Oslo?", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any = None, *calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def call(arguments: Any, name: str = "get_weather", number: int = 1) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def result(content: Any = '{"rain": false}', number: int = 1, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call0000{number}", "content": content, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
NULLS = {"tool_calls": None, "name": None, "refusal": None, "audio": None, "function_call": None}
OSLO = {"city": "Oslo", "days": 2}
ODD = {
    "city": 'Saint-Denis "la" Réunion\n\u2028',
    "days": -1,
    "unit": None,
    "x": [1.5, True, {"y": "</tool_call>"}],
}

# name, messages, whether there are tools, whether a generation prompt follows
CONVERSATIONS: list[tuple[str, list[Any], bool, bool]] = [
    ("plain", [user()], False, True),
    ("system", [SYSTEM, user()], False, True),
    ("tools", [user()], True, True),
    ("system and tools", [SYSTEM, user()], True, True),
    ("answer", [user(), assistant("No.")], True, False),
    ("null keys of a user", [user(**NULLS)], True, True),
    ("null keys of a system", [{**SYSTEM, **NULLS}, user()], False, True),
    ("null keys of an answer", [user(), assistant("No.", **NULLS)], True, False),
    ("a call, content null", [user(), assistant(None, call(OSLO))], True, False),
    ("a call, content empty", [user(), assistant("", call(OSLO))], True, False),
    ("a call beside content", [user(), assistant("I look.", call(OSLO))], True, False),
    ("a call without content", [user(), {"role": "assistant", "tool_calls": [call(OSLO)]}], True, False),
    ("arguments as text", [user(), assistant(None, call(json.dumps(OSLO)))], True, False),
    ("no arguments", [user(), assistant(None, call({}))], True, False),
    ("odd arguments", [user(), assistant(None, call(ODD))], True, False),
    ("parallel calls", [user(), assistant(None, call(OSLO), call({"to": ["a"]}, "send", 2))], True, False),
    ("a result", [user(), assistant(None, call(OSLO)), result()], True, True),
    ("a result as an object", [user(), assistant(None, call(OSLO)), result({"rain": None})], True, True),
    ("a result with a name", [user(), assistant(None, call(OSLO)), result(name="get_weather")], True, True),
    (
        "parallel results",
        [
            user(),
            assistant(None, call(OSLO), call(OSLO, number=2)),
            result(),
            result("ok", 2),
            assistant("No."),
        ],
        True,
        False,
    ),
    ("null keys of a result", [user(), assistant(None, call(OSLO)), result(**NULLS)], True, True),
    ("parts", [user([{"type": "text", "text": "Is it "}, {"type": "text", "text": "raining?"}])], True, True),
    ("parts of an answer", [user(), assistant([{"type": "text", "text": "No."}])], False, False),
    ("reasoning", [user(), assistant("No.", reasoning_content="Hm."), user("Sure?")], True, True),
    (
        "a long one",
        [SYSTEM, user(), assistant(None, call(OSLO)), result(), assistant("No. "), user(" And in Rome?\n")],
        True,
        True,
    ),
]
