"""Answers as servers send them, to one question with two tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdfast.teacher.api.body import RequestSettings, request_of
from kdfast.teacher.api.journal import Answer
from kdfast.teacher.api.price import Price
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt
from kdfast.teacher.reading import Reading

Json = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
TOOLS = [{"name": "math.f", "parameters": SCHEMA}, {"name": "now"}]
PRICE = Price(input=1_000_000, cached=1_000_000, output=2_000_000, reasoning=2_000_000)
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
ACCEPTED = ("accepted", "")


def asked(text: str | None = None, thinking: Any = "closed", worst: int = 0, **fields: Any) -> Asked:
    """A question with two tools; with a text, to `completions`."""
    fields = {"messages": [{"role": "user", "content": "q"}], "tools": TOOLS} | fields
    prompt = Prompt(source=Path("p.jsonl"), line=7, index=0, **fields)
    endpoint = "chat/completions" if text is None else "completions"
    sending = RequestSettings(base_url="http://localhost/v1", model="m", endpoint=endpoint)
    request, names = request_of(prompt, 0, sending, text=text)
    return Asked(
        prompt=prompt, request=request, names=names, input_tokens=50, thinking=thinking, worst_micro=worst
    )


def stored(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(1, "0" * 64, 0, 0, 1, True, status, headers or {}, raw, "", 5, None, None, None)


def call(name: str = "math.f", arguments: Any = '{"a": 1}') -> Json:
    sent = asked().names.sent(name) if name in ("math.f", "now") else name
    return {"id": "x", "type": "function", "function": {"name": sent, "arguments": arguments}}


def chat(content: Any = None, *calls: Json, finish: Any = "stop", **fields: Any) -> Json:
    message = {
        "role": "assistant",
        "content": content,
        **({"tool_calls": list(calls)} if calls else {}),
        **fields,
    }
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}


def completed(text: str, finish: str = "stop") -> Json:
    return {
        "choices": [{"index": 0, "text": text, "token_ids": [1], "finish_reason": finish}],
        "usage": USAGE,
    }


def hermes(name: str = "math.f", arguments: str = '{"a": 1}') -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def learned(*calls: tuple[str, Json], content: str | None = None) -> Json:
    said = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
    return {"teacher_message": {"role": "assistant", "content": content, "tool_calls": said}}


def kind(reading: Reading) -> tuple[str, str]:
    assert (reading.answer == {}) == (reading.verdict.kind != "accepted")
    return reading.verdict.kind, reading.verdict.reason
