"""A prompt's messages and tools in the one form that every OpenAI-compatible server takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.errors import DataError
from kdfast.teacher.api.reasoning import strip_reasoning
from kdfast.teacher.prompts import Prompt, tool_name

Json = dict[str, Any]

_KEPT = ("role", "content", "name", "refusal")
"""What is sent of a message, beside its calls. Servers refuse other keys (weight, train, ids of a data set)."""


def compact_json(value: Any) -> str:
    """JSON text without spaces, keys in the order in which they are given.

    Raises:
        ValueError: it is no strict JSON.

    Example:
        >>> compact_json({"b": 1.0, "a": "é"})
        '{"b":1.0,"a":"é"}'
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sent_messages(prompt: Prompt) -> list[Json]:
    """The messages of a prompt as they are sent, with the tools' own names.

    - The arguments of a call are JSON text. A call has the type `function` and an id: its own, or else that of the
      result that names no other call, or else `call_1`, `call_2` and so on.
    - A result has the id of its call: its own, or else that of the first open call of its tool, or else of the first
      open one.
    - Content is text: parts are joined, unless they hold more than text (`cache_control`), and an object is written
      as JSON. A result without content is "".
    - The reasoning of earlier turns is left out, and so is every key that servers do not know.

    Args:
        prompt: with messages.

    Raises:
        DataError: a result without a call, or a message that says nothing; with file, line and message.

    Example:
        >>> from pathlib import Path
        >>> call = {"function": {"name": "f", "arguments": {"b": 1}}}
        >>> turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "2"}]
        >>> for message in sent_messages(Prompt(source=Path("p"), line=1, index=0, messages=turns)):
        ...     print(message)
        {'role': 'assistant', 'content': None, 'tool_calls': [{'id': 'call_1', 'type': 'function', 'function':
        {'name': 'f', 'arguments': '{"b":1}'}}]}
        {'role': 'tool', 'content': '2', 'tool_call_id': 'call_1'}
    """
    writer = _Writer(prompt)
    return [writer.message(index, given) for index, given in enumerate(prompt.messages or ())]


def sent_tools(tools: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Tool definitions as they are sent: a flat one is wrapped; one without parameters takes none.

    Args:
        tools: as a record gives them. A tool without a name stays as it is: it is no function.

    Example:
        >>> sent_tools([{"name": "now", "strict": True}])[0]["function"]
        {'name': 'now', 'strict': True, 'parameters': {'type': 'object', 'properties': {}}}
    """
    return [_tool(tool) for tool in tools]


def sent_choice(choice: str | Mapping[str, Any]) -> str | Json:
    """A `tool_choice` as it is sent.

    Args:
        choice: a word, or an object that names a tool, in `function` or beside.

    Example:
        >>> sent_choice({"name": "f"})
        {'type': 'function', 'function': {'name': 'f'}}
    """
    if isinstance(choice, str):
        return choice
    return {"type": "function", "function": {"name": tool_name(choice)}}


def _tool(tool: Mapping[str, Any]) -> Json:
    if tool_name(tool) is None:
        return dict(tool)
    inner = tool.get("function")
    if isinstance(inner, Mapping):
        outer, function = dict(tool), dict(inner)
    else:
        outer, function = {}, {key: value for key, value in tool.items() if key != "type"}
    if function.get("parameters") is None:
        function["parameters"] = {"type": "object", "properties": {}}
    return {**outer, "type": outer.get("type") or "function", "function": function}


@dataclass
class _Open:
    """A call that has no result yet."""

    call: Json
    has_own_id: bool

    @property
    def name(self) -> Any:
        return self.call["function"]["name"]


class _Writer:
    """Writes messages one after the other."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        calls = (call for message in prompt.messages or () for call in message.get("tool_calls") or ())
        self._taken = {own for call in calls if (own := _own_id(call.get("id"))) is not None}
        self._made = 0
        self._open: list[_Open] = []

    def message(self, index: int, given: Mapping[str, Any]) -> Json:
        role = given.get("role")
        sent = {key: given[key] for key in _KEPT if given.get(key) is not None}
        content = _content(given.get("content"), joined=role == "assistant")
        calls: list[Json] = []
        if role == "assistant":
            said = strip_reasoning(content).text if isinstance(content, str) else ""
            content = said if said.strip() else None
            calls = self._calls(given.get("tool_calls") or ())
        elif role == "tool":
            sent["tool_call_id"] = self._answered(index, given)
            content = content or ""
        if content is None and not calls and "refusal" not in sent:
            place = f"messages[{index}] (role {role!r}) says nothing that can be sent; give it content, or remove it"
            raise self._error(f"{place}: {given.get('content')!r:.80}")
        return {**sent, "content": content, **({"tool_calls": calls} if calls else {})}

    def _calls(self, given: Sequence[Mapping[str, Any]]) -> list[Json]:
        if given:
            self._open = []
        for call in given:
            inner = call.get("function")
            function = inner if isinstance(inner, Mapping) else call
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else compact_json(arguments or {})
            name, own = function.get("name") or call.get("name"), _own_id(call.get("id"))
            sent = {"name": name, "arguments": text if text.strip() else "{}"}
            call_id = self._free_id() if own is None else own
            self._open.append(
                _Open({"id": call_id, "type": "function", "function": sent}, has_own_id=own is not None)
            )
        return [one.call for one in self._open] if given else []

    def _answered(self, index: int, given: Mapping[str, Any]) -> str:
        """The id of the call that a result belongs to."""
        own, name = _own_id(given.get("tool_call_id")), given.get("name")
        fitting = [one for one in self._open if one.call["id"] == own]
        if not fitting:
            free = [one for one in self._open if own is None or not one.has_own_id]
            fitting = [one for one in free if one.name == name] or free
        if not fitting:
            place = f"messages[{index}]: a result, and no call before it is left that it could belong to"
            remedy = "give the assistant's turn before it tool_calls, or remove it"
            raise self._error(f"{place}; {remedy}: {own or name or given.get('content')!r:.80}")
        found = fitting[0]
        self._open.remove(found)
        if own is not None:
            found.call["id"] = own
        return str(found.call["id"])

    def _free_id(self) -> str:
        while True:
            self._made += 1
            made = f"call_{self._made}"
            if made not in self._taken:
                return made

    def _error(self, reason: str) -> DataError:
        return DataError(reason, str(self._prompt.source), self._prompt.line)


def _own_id(given: Any) -> str | None:
    """The id as text; None if there is none. Some data sets number their calls."""
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    return given if isinstance(given, str) and given.strip() else None


def _content(given: Any, *, joined: bool) -> str | list[Any] | None:
    """Content as text; a list of parts that hold more than text stays one, unless it must be `joined`."""
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, list):
        return compact_json(given)
    parts = [{"type": "text", "text": part} if isinstance(part, str) else dict(part) for part in given]
    if joined or all(set(part) <= {"type", "text"} for part in parts):
        return "".join(part.get("text") or "" for part in parts)
    return [{"type": "text", **part} for part in parts]
