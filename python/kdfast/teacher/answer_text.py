"""Tool calls in what a teacher says: written in its text, or structured beside it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdfast._rust import ToolCall, ToolSchema

Json = dict[str, Any]
Call = tuple[str, dict[str, Any]]

_ELEMENT_FORMATS = ("mistral", "fenced", "array", "openai")
"""Formats whose calls may be elements of an array: then what is around the array is not in their spans."""

_LIST_KEY = re.compile(r'\{\s*"tool_calls"\s*:\Z')
_MARK = re.compile(r"(\[TOOL_CALLS\]|```\w*)\Z")
_AFTER_LIST = re.compile(r"\s*\]\s*\}?\s*(```)?\s*")
_MOST_OPENING_CHARS = 64
"""As much of a text as the opening of an array is looked for in: a long run of spaces must not cost time."""


@dataclass(frozen=True, kw_only=True)
class TextCalls:
    """The calls in a text.

    Attributes:
        text: the text.
        formats: the formats that count.
        found: the whole calls, in their order.
        attempts: (place, reason) of all that opens a call and gives none, see `kdfast.find_attempted_calls`.
    """

    text: str
    formats: Sequence[str]
    found: Sequence[ToolCall]
    attempts: Sequence[tuple[int, str]]

    @property
    def calls(self) -> tuple[Call, ...]:
        """(name, arguments) of each call.

        Raises:
            ValueError: an argument is there twice: which value the model meant, nobody knows.
        """
        for call in self.found:
            keys = Counter(self.text[slice(*span)] for span in call.key_spans)
            repeated = [key for key, count in keys.items() if count > 1]
            if repeated:
                raise ValueError(f"{call.name}: the argument is there twice: {repeated[0]}")
        return tuple((call.name, call.arguments) for call in self.found)

    def message(self) -> Json | None:
        """The text as an assistant's message with calls; None if other text stands between or after them.

        Raises:
            ValueError: as for `calls`.
        """
        before = _text_before(self.text, self.found)
        if before is None:
            return None
        calls = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in self.calls]
        content = before.rstrip()
        return {"role": "assistant", "content": content or None, "tool_calls": calls}


def calls_in(text: str, formats: Sequence[str], schema: ToolSchema | None) -> TextCalls:
    r"""Finds the calls in a text whose reasoning was taken out.

    Args:
        text: the text, without halves of characters.
        formats: the formats that count.
        schema: the prompt's tools; None = none.

    Example:
        >>> found = calls_in('Hm.\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', ["hermes"], None)
        >>> found.message()["content"], found.calls
        ('Hm.', (('f', {'a': 1}),))
    """
    from kdfast._rust import find_attempted_calls, find_tool_calls

    return TextCalls(
        text=text,
        formats=formats,
        found=find_tool_calls(text, formats, tools=schema),
        attempts=find_attempted_calls(text, formats, tools=schema),
    )


def structured_calls(message: Mapping[str, Any]) -> tuple[Call, ...]:
    """(name, arguments) of each call of a `teacher_message`."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return tuple((function["name"], function["arguments"]) for function in functions)


def schema_fault(calls: Sequence[Call], schema: ToolSchema) -> str:
    """What is wrong with the first call that breaks its tool's schema: tool, place, message; "" if none does.

    Args:
        calls: (name, arguments), that strict JSON can hold.
        schema: the tools.
    """
    from kdfast._rust import find_tool_calls

    for name, arguments in calls:
        found = find_tool_calls(hermes_text(name, arguments), ["hermes"])
        if len(found) != 1:
            return f"{name}: the arguments are nested too deeply"
        issues = schema.issues(found[0])
        if issues:
            return f"{name}: {issues[0]['instance_path']}: {issues[0]['message']}"
    return ""


def hermes_text(name: str, arguments: Mapping[str, Any]) -> str:
    r"""A call as text that no argument can end early.

    Example:
        >>> hermes_text("f", {"a": "</tool_call>"})
        '<tool_call>{"name": "f", "arguments": {"a": "\\u003c/tool_call>"}}</tool_call>'
    """
    written = json.dumps({"name": name, "arguments": arguments}).replace("<", "\\u003c")
    return f"<tool_call>{written}</tool_call>"


def said(message: Mapping[str, Any]) -> str:
    """What an assistant's message says, for people: its content, then a line a call.

    Args:
        message: with `content`, `tool_calls` or both.

    Example:
        >>> print(said({"content": "I look.", "tool_calls": [{"function": {"name": "f", "arguments": {"a": "é"}}}]}))
        I look.
        f({"a": "é"})
    """
    lines = [message["content"]] if message.get("content") else []
    for name, arguments in structured_calls(message):
        lines.append(f"{name}({json.dumps(arguments, ensure_ascii=False)})")
    return "\n".join(lines)


def _text_before(text: str, found: Sequence[ToolCall]) -> str | None:
    """The text before the first call; None if more than the calls' own frames stands after it."""
    if not found:
        return None
    starts, ends = [call.span[0] for call in found], [call.span[1] for call in found]
    before, after = text[: starts[0]], text[ends[-1] :]
    between = {text[end:start].strip() for end, start in zip(ends, starts[1:], strict=False)}
    if found[0].format in _ELEMENT_FORMATS and before.rstrip().endswith("["):
        in_frame = between <= {","} and _AFTER_LIST.fullmatch(after)
        return _without_opening(before) if in_frame else None
    return before if between <= {"", ";"} and not after.strip() else None


def _without_opening(before: str) -> str:
    """The text before an array of calls, without what opens the array: `[`, `[TOOL_CALLS][`, a fence."""
    rest = before.rstrip()[:-1].rstrip()
    for opening in (_LIST_KEY, _MARK):
        found = opening.search(rest, max(0, len(rest) - _MOST_OPENING_CHARS))
        rest = rest[: found.start()].rstrip() if found else rest
    return rest
