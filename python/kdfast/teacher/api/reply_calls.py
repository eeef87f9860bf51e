"""The calls of a reply as kdfast's records hold them: name and arguments as an object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

Json = dict[str, Any]


class ReplyError(ValueError):
    """A reply that cannot be right.

    Attributes:
        reason: a fixed word, by which the journal counts.
        detail: what is wrong, in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def read_calls(message: Mapping[str, Any]) -> list[Json]:
    r"""The calls of an assistant's message; [] if it has none.

    Args:
        message: with `tool_calls`, or with `function_call` as before 2024. Ids are left out: a server draws them.

    Raises:
        ReplyError: a call cannot be right; its reason is `broken_call` or `broken_arguments`.

    Example:
        >>> read_calls({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]})
        [{'type': 'function', 'function': {'name': 'f', 'arguments': {'a': 1}}}]
    """
    calls, legacy = message.get("tool_calls") or [], message.get("function_call")
    if not isinstance(calls, list):
        raise ReplyError("broken_call", f"tool_calls: expected a list, got {type(calls).__name__}")
    if legacy:
        if calls:
            raise ReplyError("broken_call", "both tool_calls and function_call are given")
        return [_call({"function": legacy}, "function_call")]
    return [_call(call, f"tool_calls[{index}]") for index, call in enumerate(calls)]


def _call(call: Any, place: str) -> Json:
    if not isinstance(call, Mapping):
        raise ReplyError("broken_call", f"{place}: expected an object, got {type(call).__name__}")
    if call.get("type") not in (None, "", "function"):
        raise ReplyError("broken_call", f"{place}.type: only functions can be learned: {call['type']!r}")
    function = call.get("function")
    if not isinstance(function, Mapping):
        raise ReplyError(
            "broken_call", f"{place}.function: expected an object, got {type(function).__name__}"
        )
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise ReplyError("broken_call", f"{place}: the call has no name: {name!r}")
    arguments = _arguments(function.get("arguments"), f"{place} ({name}).arguments")
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(given: Any, place: str) -> Json:
    """Arguments as an object, or its JSON text; none and a blank text stand for no arguments."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    if isinstance(given, str):
        try:
            given = json.loads(given, parse_constant=_no_constant, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise ReplyError("broken_arguments", f"{place}: no JSON ({error})") from None
        if isinstance(given, str):
            raise ReplyError("broken_arguments", f"{place}: the text is encoded twice")
    if not isinstance(given, dict):
        raise ReplyError("broken_arguments", f"{place}: expected an object, got {type(given).__name__}")
    return given


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> Json:
    """Which of two values the model meant, nobody knows."""
    read = dict(pairs)
    if len(read) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key is there twice: {repeated!r}")
    return read
