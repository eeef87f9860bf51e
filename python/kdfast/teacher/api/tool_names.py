"""Tool names that every API takes, `[A-Za-z0-9_-]{1,64}`, and the way back to the record's own names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kdfast.errors import DataError

MOST_CHARS = 64

_ALLOWED = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OTHER = re.compile(r"[^A-Za-z0-9_-]")
_DIGEST_CHARS = 8

Json = dict[str, Any]


class ToolNames:
    """The names of one request's tools, in both directions.

    A name that every API takes stays as it is. Another one gets `_` for each character that is not allowed, is cut, and
    ends with a digest of the whole name; the digest changes until no two names are equal. The mapping depends on the
    set of names alone, not on their order.

    Args:
        names: the tools' own names, and those of calls in the messages; repeats are allowed.

    Raises:
        DataError: a name is empty.

    Example:
        >>> names = ToolNames(["math.sum", "weather"])
        >>> names.sent("math.sum"), names.sent("weather")
        ('math_sum_7f0cf20a', 'weather')
        >>> names.own("math_sum_7f0cf20a")
        'math.sum'
    """

    def __init__(self, names: Iterable[str]) -> None:
        every = sorted(set(names))
        if "" in every:
            raise DataError("a tool has no name; give every tool a name: ''")
        self._sent = {name: name for name in every if _ALLOWED.fullmatch(name)}
        taken = set(self._sent)
        for name in every:
            if name not in self._sent:
                self._sent[name] = _free_name(name, taken)
                taken.add(self._sent[name])
        self._own = {sent: name for name, sent in self._sent.items()}

    @classmethod
    def of_request(cls, request: Mapping[str, Any]) -> ToolNames:
        """The names in a request: of its tools, its `tool_choice` and the calls in its messages.

        Args:
            request: a chat completion request with the record's own names.
        """
        found: list[str] = []

        def note(name: str) -> str:
            found.append(name)
            return name

        _renamed_request(request, note)
        return cls(found)

    def sent(self, name: str) -> str:
        """The name to send instead of the tool's own name.

        Args:
            name: one of the names that were given.
        """
        return self._sent[name]

    def own(self, sent: str) -> str:
        """The tool's own name. A name that was never sent stays: the model made it up, and the schema check says so.

        Args:
            sent: the name in a reply.
        """
        return self._own.get(sent, sent)

    def to_request(self, request: Mapping[str, Any]) -> Json:
        """A copy of a request with the names to send.

        Args:
            request: with the tools' own names in `tools`, `functions`, `tool_choice`, `function_call` and `messages`.
        """
        return _renamed_request(request, self.sent)

    def to_reply(self, reply: Mapping[str, Any]) -> Json:
        """A copy of a reply with the tools' own names in the calls of its choices.

        Args:
            reply: the parsed body.
        """
        choices = reply.get("choices")
        if not isinstance(choices, list):
            return dict(reply)
        return {**reply, "choices": [_renamed_choice(choice, self.own) for choice in choices]}

    def to_message(self, message: Mapping[str, Any]) -> Json:
        """A copy of one message of a reply, with the tools' own names.

        Args:
            message: an assistant's message.
        """
        return _renamed_message(message, self.own)


def _free_name(name: str, taken: set[str]) -> str:
    plain = _OTHER.sub("_", name)[: MOST_CHARS - _DIGEST_CHARS - 1]
    for attempt in range(len(taken) + 1):
        digest = hashlib.sha256(f"{attempt or ''}{name}".encode("utf-8", "surrogatepass")).hexdigest()
        sent = f"{plain}_{digest[:_DIGEST_CHARS]}"
        if sent not in taken:
            return sent
    raise DataError(f"no free name is left for the tool; rename it: {name!r}")


def _renamed_request(request: Mapping[str, Any], rename: Callable[[str], str]) -> Json:
    renamed = dict(request)
    if isinstance(request.get("tools"), list):
        renamed["tools"] = [_renamed_function(tool, rename) for tool in request["tools"]]
    if isinstance(request.get("functions"), list):
        renamed["functions"] = [_named(function, rename) for function in request["functions"]]
    if isinstance(request.get("tool_choice"), Mapping):
        renamed["tool_choice"] = _renamed_choice_of_tools(request["tool_choice"], rename)
    if isinstance(request.get("function_call"), Mapping):
        renamed["function_call"] = _named(request["function_call"], rename)
    if isinstance(request.get("messages"), list):
        renamed["messages"] = [_renamed_message(message, rename) for message in request["messages"]]
    return renamed


def _renamed_choice_of_tools(choice: Mapping[str, Any], rename: Callable[[str], str]) -> Json:
    """One function, or `{"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [...]}}`."""
    allowed = choice.get("allowed_tools")
    if isinstance(allowed, Mapping) and isinstance(allowed.get("tools"), list):
        tools = [_renamed_function(tool, rename) for tool in allowed["tools"]]
        return {**choice, "allowed_tools": {**allowed, "tools": tools}}
    return dict(_renamed_function(choice, rename))


def _renamed_choice(choice: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(choice, Mapping) and isinstance(choice.get("message"), Mapping):
        return {**choice, "message": _renamed_message(choice["message"], rename)}
    return choice


def _renamed_message(message: Mapping[str, Any], rename: Callable[[str], str]) -> Json:
    renamed = dict(message)
    if isinstance(message.get("tool_calls"), list):
        renamed["tool_calls"] = [_renamed_function(call, rename) for call in message["tool_calls"]]
    if isinstance(message.get("function_call"), Mapping):
        renamed["function_call"] = _named(message["function_call"], rename)
    # The `name` of a user is a person; that of a result is the tool.
    return _named(renamed, rename) if message.get("role") in ("tool", "function") else renamed


def _renamed_function(tool: Any, rename: Callable[[str], str]) -> Any:
    """A tool or a call: the name is in `function`, or beside the rest in the flat form."""
    if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping):
        return {**tool, "function": _named(tool["function"], rename)}
    return _named(tool, rename)


def _named(entry: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return {**entry, "name": rename(entry["name"])}
    return entry
