"""The texts of an answer, and their tokens counted here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdfast.teacher.api.reasoning import reasoning_of_fields, reasoning_of_part

if TYPE_CHECKING:
    from kdfast._rust import Tokenizer


def without_halves(text: str) -> str:
    r"""The text with `?` for each half of a surrogate pair: JSON can hold one, UTF-8 cannot.

    Example:
        >>> without_halves("half \ud800")
        'half ?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """The tokens of some texts, each by itself."""
    return sum(len(tokenizer.encode(without_halves(text))) for text in texts)


def texts_of(choices: Sequence[Any]) -> list[str]:
    """All that the choices of a reply say: content, reasoning, names and arguments of calls.

    Args:
        choices: as the server sent them, whatever they are.

    Example:
        >>> texts_of([{"message": {"content": "a", "reasoning": "b"}}, {"text": "c"}, None])
        ['b', 'a', 'c']
    """
    found: list[str] = []
    for choice in choices:
        if not isinstance(choice, Mapping):
            continue
        if isinstance(choice.get("message"), Mapping):
            found += _of_message(choice["message"])
        elif isinstance(choice.get("text"), str):
            found.append(choice["text"])
    return [text for text in found if text]


def content_text(content: Any) -> str:
    """The text of a message's content, reasoning left out; "" if it has none."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if part.get("type", "text") in ("text", "output_text"))
    return "".join(text for text in texts if isinstance(text, str))


def raw_calls(message: Mapping[str, Any]) -> list[Any]:
    """The calls of a message as the server sent them, whatever they are."""
    calls, old = message.get("tool_calls"), message.get("function_call")
    return [*(calls if isinstance(calls, list) else []), *([{"function": old}] if old else [])]


def _of_message(message: Mapping[str, Any]) -> Iterator[str]:
    yield reasoning_of_fields(message)
    content = message.get("content")
    yield content_text(content)
    for part in content if isinstance(content, list) else []:
        if isinstance(part, Mapping) and part.get("type") in ("thinking", "reasoning"):
            yield reasoning_of_part(part)
    for call in raw_calls(message):
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            yield from (_text(function.get(key)) for key in ("name", "arguments"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
