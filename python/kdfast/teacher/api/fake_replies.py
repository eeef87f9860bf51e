"""What the fake server answers: an echo with a valid call, and every fault that a real server was seen to make."""

from __future__ import annotations

import gzip
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Literal

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FakeRequest:
    """A request as the fake server saw it.

    Attributes:
        index: how many requests came before it.
        times_seen: how many of them had the same content.
        method: GET or POST.
        path: the path, with its query.
        headers: names in lower case.
        content: the parsed body; {} if there is none.
        digest: a digest of path and content, equal for equal requests.
    """

    index: int
    times_seen: int
    method: str
    path: str
    headers: Mapping[str, str]
    content: Json
    digest: str

    @property
    def text(self) -> str:
        """The last user's message, or the prompt."""
        messages = [
            message for message in self.content.get("messages") or [] if message.get("role") == "user"
        ]
        said = messages[-1].get("content") if messages else self.content.get("prompt")
        return said if isinstance(said, str) else json.dumps(said)


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """What the server writes and how it ends the connection.

    Attributes:
        data: the bytes, head and body; b"" = not one.
        end: `close`; `reset` = so that the client gets an error; `hang` = say nothing more until the client goes.
        drip: write one byte after the other, slowly.
    """

    data: bytes = b""
    end: Literal["close", "reset", "hang"] = "close"
    drip: bool = False


@dataclass(frozen=True)
class _Error:
    status: int
    message: str
    code: str | None = None
    type: str = "invalid_request_error"
    headers: Callable[[float], Mapping[str, str]] = field(default=lambda _: {})


def _date(wait_s: float) -> Mapping[str, str]:
    now = time.time()
    return {
        "Date": formatdate(now, usegmt=True),
        "Retry-After": formatdate(now + math.ceil(wait_s), usegmt=True),
    }


def _limits(wait_s: float) -> Mapping[str, str]:
    return {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": f"{math.ceil(wait_s * 1000)}ms",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "6m0s",
    }


_SLOW_DOWN = ("Rate limit reached", "rate_limit_exceeded", "requests")
_ERRORS = {
    "rate_limit": _Error(429, *_SLOW_DOWN),
    "rate_limit_seconds": _Error(429, *_SLOW_DOWN, lambda wait_s: {"Retry-After": f"{wait_s:g}"}),
    "rate_limit_date": _Error(429, *_SLOW_DOWN, _date),
    "rate_limit_ms": _Error(
        429,
        *_SLOW_DOWN,
        lambda wait_s: {"retry-after-ms": str(math.ceil(wait_s * 1000)), "retry-after": "600"},
    ),
    "rate_limit_reset": _Error(429, *_SLOW_DOWN, _limits),
    "quota": _Error(429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
    "bad_request": _Error(400, "messages[0]: cannot be read"),
    "forbidden": _Error(403, "Country, region, or territory not supported", "unsupported_country"),
    "unknown_model": _Error(404, "The model `fake` does not exist", "model_not_found"),
    "content_filter": _Error(400, "The response was filtered due to our policy", "content_filter"),
    "context_length": _Error(
        400, "This model's maximum context length is 8 tokens", "context_length_exceeded"
    ),
    "refused_schema": _Error(400, "Invalid schema for function 'f'", "invalid_function_parameters"),
    "timeout": _Error(408, "Timed out", type="timeout"),
    "conflict": _Error(409, "Conflict", type="conflict"),
    "error_500": _Error(500, "The server had an error", type="server_error"),
    "error_502": _Error(502, "Bad gateway", type="server_error"),
    "error_503": _Error(503, "The engine is overloaded", type="server_error"),
    "error_504": _Error(504, "Gateway timeout", type="server_error"),
    "error_529": _Error(529, "Overloaded", type="overloaded_error"),
}
_WHOLE = ("ok", "gzip", "reset_after_body", "slow_drip")
_BROKEN = (
    "hang",
    "reset",
    "reset_before_body",
    "close",
    "truncated_body",
    "cut_chunks",
    "truncated_json",
    "short_length",
    "bad_json",
    "error_in_200",
    "no_choices",
    "empty_choices",
    "redirect",
    "html_502",
    "unauthorised",
)

BEHAVIOURS: tuple[str, ...] = (*_WHOLE, *_ERRORS, *_BROKEN)
"""Everything that the server can do. After the first four the client has a whole answer."""


def script(behaviour: str, request: FakeRequest, wait_s: float) -> Scripted:
    """What the server does about a request.

    Args:
        behaviour: one of `BEHAVIOURS`.
        request: the request.
        wait_s: the wait that it asks for where it asks for one, in seconds.
    """
    if behaviour in _ERRORS:
        error = _ERRORS[behaviour]
        body = {"error": {"message": error.message, "type": error.type, "param": None, "code": error.code}}
        return Scripted(data=http_response(error.status, _bytes(body), error.headers(wait_s)))
    answer = _bytes(fake_answer(request))
    if behaviour in _WHOLE:
        return _whole(behaviour, answer)
    if behaviour == "unauthorised":
        # Some servers repeat the key that they refuse.
        words = f"Incorrect API key provided: {request.headers.get('authorization', '')}"
        error_body = {"error": {"message": words, "code": "invalid_api_key"}}
        return Scripted(data=http_response(401, _bytes(error_body)))
    return _broken(behaviour, answer)


def _whole(behaviour: str, answer: bytes) -> Scripted:
    if behaviour == "gzip":
        packed = gzip.compress(answer, mtime=0)
        return Scripted(data=http_response(200, packed, {"Content-Encoding": "gzip"}))
    end: Literal["close", "reset"] = "reset" if behaviour == "reset_after_body" else "close"
    return Scripted(data=http_response(200, answer), end=end, drip=behaviour == "slow_drip")


def _broken(behaviour: str, answer: bytes) -> Scripted:
    half = answer[: len(answer) // 2]
    whole = http_response(200, answer)
    chunked = (
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(half):x}\r\n".encode() + half + b"\r\n"
    )
    refusals = _bytes({"error": {"message": "Provider returned an error", "code": 502}})
    scripts = {
        "hang": Scripted(end="hang"),
        "reset": Scripted(end="reset"),
        "reset_before_body": Scripted(data=whole[: -len(answer)], end="reset"),
        "close": Scripted(),
        "truncated_body": Scripted(data=whole[: -len(half)]),
        "cut_chunks": Scripted(data=chunked),
        "truncated_json": Scripted(data=http_response(200, half)),
        "short_length": Scripted(data=http_response(200, answer, length=len(half))),
        "bad_json": Scripted(data=http_response(200, b"{'choices': oops}")),
        "error_in_200": Scripted(data=http_response(200, refusals)),
        "no_choices": Scripted(data=http_response(200, b'{"id": "fake"}')),
        "empty_choices": Scripted(data=http_response(200, b'{"choices": []}')),
        "redirect": Scripted(data=http_response(307, b"", {"Location": "/elsewhere"})),
        "html_502": Scripted(data=http_response(502, b"<html><h1>502 Bad Gateway</h1></html>")),
    }
    if behaviour not in scripts:
        raise ValueError(f"unknown behaviour; known are {', '.join(BEHAVIOURS)}: {behaviour!r}")
    return scripts[behaviour]


def http_response(
    status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int | None = None
) -> bytes:
    """The bytes of a response that closes its connection.

    Args:
        status: the HTTP status.
        body: the body.
        headers: more headers.
        length: the length to say, if not that of the body.
    """
    phrase = next((known.phrase for known in HTTPStatus if known == status), "Unknown")
    said = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body) if length is None else length),
        "Connection": "close",
        **(headers or {}),
    }
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in said.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def fake_answer(request: FakeRequest) -> Json:
    """The reply to a request: a function of its content alone.

    A GET of `models` is answered with the list of its one model, "fake". Otherwise, with tools, it calls the first one,
    with a value for each required argument; without, it repeats the user's text.

    Args:
        request: a request to `chat/completions`, or to `completions`.
    """
    if request.method == "GET" and request.path.partition("?")[0].endswith("/models"):
        return {"object": "list", "data": [{"id": "fake", "object": "model"}]}
    tools = request.content.get("tools") or []
    chat = "completions" not in request.path or "chat" in request.path
    message: Json = {"role": "assistant", "content": f"echo: {request.text}"}
    finish = "stop"
    if tools and chat and request.content.get("tool_choice") != "none":
        call = {"id": "call_0", "type": "function", "function": _call(tools[0]["function"], request.text)}
        message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    said: Json = {"message": message} if chat else {"text": message["content"]}
    prompt, completion = len(json.dumps(request.content)) // 4 + 1, len(json.dumps(said)) // 4 + 1
    return {
        "id": f"fake-{request.digest[:12]}",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": request.content.get("model", "fake"),
        "system_fingerprint": "fp_fake",
        "choices": [{"index": 0, **said, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }


def _call(function: Json, text: str) -> Json:
    schema = function.get("parameters") or {}
    properties = schema.get("properties") or {}
    arguments = {name: _value(properties.get(name) or {}, text) for name in schema.get("required") or []}
    return {"name": function["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}


_TEXTS = {
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "date-time": "2026-01-31T12:00:00Z",
    "email": "ann@example.com",
}
"""Texts of the formats that a schema may ask for."""


def _value(schema: Any, text: str) -> Any:
    """A value that a usual schema allows; patterns and conditions are not looked at."""
    if not isinstance(schema, dict):
        return text
    given = [schema[key] for key in ("const", "default") if key in schema]
    given += [schema[key][0] for key in ("enum", "examples") if schema.get(key)]
    chosen = next((key for key in ("anyOf", "oneOf", "allOf") if schema.get(key)), None)
    if given:
        return given[0]
    if chosen is not None:
        return _value({**schema, chosen: None, **schema[chosen][0]}, text)
    return _of_kind(schema, text)


def _of_kind(schema: Json, text: str) -> Any:
    """A value of the schema's type."""
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind == "array":
        return [_value(schema.get("items") or {}, text)] * int(schema.get("minItems", 0))
    if kind == "object":
        inner = schema.get("properties") or {}
        return {name: _value(inner.get(name) or {}, text) for name in schema.get("required") or []}
    if kind in ("integer", "number"):
        return _number(schema, 1 if kind == "integer" else 1.5)
    plain = {"boolean": True, "null": None}
    return plain[kind] if kind in plain else _text(schema, text)


def _number(schema: Json, usual: float) -> float:
    """The usual number, or the nearest that the limits allow."""
    least, most = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    if isinstance(above, int | float) and not isinstance(above, bool) and usual <= above:
        return above + 1
    if least is not None and usual < least:
        return float(least) if isinstance(usual, float) else math.ceil(least)
    if most is not None and usual > most:
        return float(most) if isinstance(usual, float) else math.floor(most)
    return usual


def _text(schema: Json, text: str) -> str:
    """The text, or one of the format that is asked for, within the limits of its length."""
    said = _TEXTS.get(schema.get("format", ""), text)
    return said.ljust(int(schema.get("minLength", 0)), ".")[: schema.get("maxLength")]


def _bytes(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
