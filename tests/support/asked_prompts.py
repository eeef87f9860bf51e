"""What a recipe knows of a teacher's job, for tests: a config, prompts, requests, answers, and what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdfast.config import Config, config_from_dict
from kdfast.teacher.api.journal import Answer, Attempt, Journal, Request, Response, Verdict
from kdfast.teacher.api.usage import Usage
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt, Truth
from kdfast.teacher.reading import Reading

BASE_URL = "http://127.0.0.1:8080/v1"


def job_config(
    teacher: dict[str, Any] | None = None,
    api: dict[str, Any] | None = None,
    price: dict[str, Any] | None = None,
) -> Config:
    """A config of kind api, whose sections get these keys."""
    return config_from_dict(
        {
            "arch": {"init": "student"},
            "data": {"train": "answers.jsonl", "tokenizer": "tokenizer.json"},
            "io": {"run_dir": "run"},
            "teacher": {"kind": "api", "prompts": "prompts.jsonl", "out": "answers.jsonl", **(teacher or {})},
            "api": {"base_url": BASE_URL, "model": "m", **(api or {})},
            "price": price or {},
        }
    )


def job_prompt(index: int = 0, **parts: Any) -> Prompt:
    """A prompt that stands on line `index + 1`."""
    told = {"messages": [{"role": "user", "content": f"question {index}"}]} if "prompt" not in parts else {}
    return Prompt(source=Path("prompts.jsonl"), line=index + 1, index=index, **{**told, **parts})


def weather_tool(name: str = "weather") -> dict[str, Any]:
    """A tool with one argument, a text, that is required."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def call_truth(*cities: str) -> Truth:
    """The right answer that calls `weather` once for each city; none: that says so in words."""
    calls = [
        {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}} for city in cities
    ]
    said = {"content": None, "tool_calls": calls} if calls else {"content": "No tool can tell."}
    return Truth(message={"role": "assistant", **said})


def ask(prompt: Prompt, *, model: str = "m", input_tokens: int = 100, **settings: Any) -> Asked:
    """One request for a prompt."""
    body = {"model": model, "messages": list(prompt.messages or [])}
    request = Request(f"{BASE_URL}/chat/completions", body, order=prompt.index)
    return Asked(prompt=prompt, request=request, input_tokens=input_tokens, **settings)


def answer_of(
    journal: Journal,
    asked: Asked,
    output_tokens: int | None = 50,
    *,
    latency_ms: int = 1000,
    cost_micro: int = 10,
) -> Answer:
    """A final answer in the journal, with the usage of the server; None = it says none."""
    attempt = journal.begin_attempt(asked.request, asked.worst_micro)
    assert isinstance(attempt, Attempt), attempt
    counted = None if output_tokens is None else {"prompt_tokens": 100, "completion_tokens": output_tokens}
    body = json.dumps({"choices": [], "usage": counted}).encode()
    response = Response(200, {}, body, latency_ms)
    return journal.finish_attempt(attempt, response, final=True, cost_micro=cost_micro, usage=counted)


def reading(*cities: str, kind: str = "accepted", reason: str = "", **settings: Any) -> Reading:
    """An answer that calls `weather` for each city."""
    calls = tuple(("weather", {"city": city}) for city in cities)
    usage = settings.pop("usage", Usage(input_tokens=100, output_tokens=50))
    text = settings.pop("text", " ".join(f"weather({city})" for city in cities) or "I cannot tell.")
    return Reading(verdict=Verdict(kind, reason), calls=calls, usage=usage, text=text, **settings)
