"""Takes a teacher's reasoning out of its answer. It stays in the journal and reaches no record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""What opens and closes a block of reasoning in a text; the same as in kdfast's search for calls."""

FIELDS = ("reasoning_content", "reasoning", "thinking")
PARTS = ("thinking", "reasoning", "redacted_thinking")

# A mark counts at the start of a line only: "What does <think> mean?" is an answer.
_OPENING = re.compile(rf"^[ \t]*({'|'.join(re.escape(opening) for opening, _ in MARKS)})", re.MULTILINE)
_LONE_CLOSING = re.compile(
    rf"^[ \t]*({'|'.join(re.escape(closing) for _, closing in MARKS)})"
    rf"|({'|'.join(re.escape(closing) for _, closing in MARKS)})[ \t]*(?=\n|\Z)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Stripped:
    """An answer without its reasoning.

    Attributes:
        text: the answer. Text without reasoning is unchanged; after a block, white space is left out.
        reasoning: the reasoning, blocks joined by a blank line; "" if there is none.
        blocks: the number of blocks.
        open: whether the last block was not closed. Then the reasoning goes on to the end, and there is no answer.
    """

    text: str
    reasoning: str = ""
    blocks: int = 0
    open: bool = False


def strip_reasoning(text: str, opened_by_prompt: bool = False) -> Stripped:
    r"""Takes blocks of reasoning out of a text.

    A block opens at the start of a line. If a text has a closing mark at a line's start or end and no opening before
    it, the prompt opened the block: everything before the mark is reasoning.

    Args:
        text: the answer as the server sent it.
        opened_by_prompt: whether the prompt ends with the opening of a block. Then a text without a closing mark is all
            reasoning.

    Examples:
        >>> strip_reasoning("<think>\nA sum.\n</think>\n\n4").text
        '4'
        >>> strip_reasoning("A sum.\n</think>\n\n4")
        Stripped(text='4', reasoning='A sum.', blocks=1, open=False)
        >>> strip_reasoning("What does <think> mean?").blocks
        0
    """
    kept: list[str] = []
    reasoning: list[str] = []
    rest, is_open = text, False
    opening, closing = _OPENING.search(rest), _LONE_CLOSING.search(rest)
    if opened_by_prompt and closing is None:
        return Stripped("", text.strip(), 1, open=True)
    if closing is not None and (opening is None or closing.start() < opening.start()):
        reasoning.append(rest[: closing.start()])
        rest = rest[closing.end() :].lstrip()
    while (opening := _OPENING.search(rest)) is not None:
        kept.append(rest[: opening.start()])
        block, mark, after = rest[opening.end() :].partition(dict(MARKS)[opening[1]])
        reasoning.append(block)
        is_open, rest = not mark, after.lstrip()
    kept.append(rest)
    words = "\n\n".join(part.strip() for part in reasoning if part.strip())
    return Stripped("".join(kept), words, len(reasoning), is_open)


def reasoning_of_fields(message: Mapping[str, Any]) -> str:
    """The reasoning that a server puts beside the answer; "" if there is none.

    Servers that write it under two names write the same text twice: the first one counts.

    Args:
        message: an assistant's message.
    """
    for field in FIELDS:
        if isinstance(message.get(field), str) and message[field].strip():
            return str(message[field])
    details = message.get("reasoning_details")
    if not isinstance(details, list):
        return ""
    texts = (part.get("text") or part.get("summary") for part in details if isinstance(part, Mapping))
    return "".join(text for text in texts if isinstance(text, str))


def reasoning_of_part(part: Mapping[str, Any]) -> str:
    """The text of a content part of type `thinking` or `reasoning`; "" if it is encrypted.

    Args:
        part: the part.
    """
    for key in ("thinking", "reasoning", "text"):
        value = part.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, list):  # Mistral: a list of text parts
            return "".join(reasoning_of_part(inner) for inner in value if isinstance(inner, Mapping))
    return ""
