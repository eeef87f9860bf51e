"""What one choice of a reply says, and whether it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kdfast.teacher.answer_rules import fault_of
from kdfast.teacher.answer_text import Call, TextCalls, calls_in, said, structured_calls
from kdfast.teacher.answer_usage import content_text, raw_calls, without_halves
from kdfast.teacher.api.journal import Verdict
from kdfast.teacher.api.reasoning import strip_reasoning
from kdfast.teacher.api.reply import Answer as Choice
from kdfast.teacher.api.reply_calls import read_calls
from kdfast.teacher.asked import Asked

if TYPE_CHECKING:
    from kdfast._rust import ToolSchema

Json = dict[str, Any]

_FAILED = ("content_filter", "error_in_choice", "broken_off", "no_message", "role")
"""Problems of a choice that are the server's; the others are the model's: its answer is `filtered`."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What one choice says.

    Attributes:
        verdict: `accepted`, `filtered` or `failed`, and the reason in a fixed word.
        detail: the reason in words; "" = none.
        text: what the teacher said, for people, without reasoning.
        calls: (name, arguments) of each call; also of a choice that is not used, as far as it is read.
        broken: how many times the choice opens a call and gives none.
        answer: `teacher_message` or `teacher_text`; {} unless accepted.
        learned: the text that is learned, if the server can say which tokens it has; None with structured calls.
    """

    verdict: Verdict
    detail: str = ""
    text: str
    calls: tuple[Call, ...] = ()
    broken: int = 0
    answer: Json = field(default_factory=dict)
    learned: str | None = None


def hear(
    asked: Asked, choice: Mapping[str, Any], found: Choice, formats: Sequence[str], schema: ToolSchema | None
) -> Heard:
    """Judges a choice.

    Args:
        asked: the prompt and its request.
        choice: the choice as the server sent it.
        found: the same, as `read_reply` reads it.
        formats: the formats of calls that count in texts.
        schema: the prompt's tools; None = none.
    """
    if found.problem:
        return _problem(asked, choice, found, formats, schema)
    return _whole(asked, found, formats, schema)


def _whole(asked: Asked, found: Choice, formats: Sequence[str], schema: ToolSchema | None) -> Heard:
    """What a choice without a problem of its own says."""
    message = found.message
    text = (message["content"] or "") if message is not None else found.text or ""
    structured = structured_calls(message or {})
    written = calls_in(text, formats, schema)
    if message is not None and not structured:
        written = _of_any_format(written, schema)
    heard = Heard(
        verdict=Verdict("accepted"),
        text=said(message) if message is not None else text,
        calls=structured,
        broken=len(written.attempts),
        learned=None if structured else text,
    )
    try:
        heard = heard if structured else replace(heard, calls=written.calls)
        spoken = written.message()
    except ValueError as error:
        return replace(heard, verdict=Verdict("filtered", "broken_arguments"), detail=str(error))
    if found.finish == "length":
        words = "the answer ends at the limit of its tokens"
        return replace(heard, verdict=Verdict("filtered", "cut"), detail=words)
    fault = fault_of(asked, structured, written, schema)
    if fault is not None:
        return replace(heard, verdict=Verdict("filtered", fault[0]), detail=fault[1])
    if not written.found:
        return replace(heard, answer={"teacher_message": message or {"role": "assistant", "content": text}})
    detail = "the server gave its calls as text" if message is not None else ""
    kept = {"teacher_text": text} if spoken is None else {"teacher_message": spoken}
    return replace(heard, answer=kept, detail=detail)


def _of_any_format(written: TextCalls, schema: ToolSchema | None) -> TextCalls:
    """Calls in the content of a server without a parser of calls: in whatever format its model writes them.

    Calls of another format than the data's count only if the tools take all of them. Then it is no chance that they
    look like calls, and the student learns them in its own format.
    """
    broken = any(reason != "format" for _, reason in written.attempts)
    if schema is None or written.found or broken:
        return written
    from kdfast._rust import tool_call_formats

    other = calls_in(written.text, tool_call_formats(), schema)
    if not other.found or other.attempts or not all(map(schema.is_valid, other.found)):
        return written
    return other


def _problem(
    asked: Asked, choice: Mapping[str, Any], found: Choice, formats: Sequence[str], schema: ToolSchema | None
) -> Heard:
    """What can be read of a choice that is no answer."""
    reason = found.problem
    if found.finish == "length" and reason not in _FAILED:
        reason = "cut"
    kind = "failed" if reason in _FAILED else "filtered"
    given = choice.get("message")
    message = given if isinstance(given, Mapping) else {}
    raw = content_text(message.get("content")) or content_text(choice.get("text"))
    opened = asked.thinking == "open" and not message
    text = without_halves(strip_reasoning(raw, opened).text)
    written = calls_in(text, formats, schema)
    calls: list[Call] = []
    broken = len(written.attempts)
    for call in raw_calls(asked.names.to_message(message)):
        try:
            calls += _storable(structured_calls({"tool_calls": read_calls({"tool_calls": [call]})}))
        except ValueError:
            broken += 1
    if not calls and not broken:
        try:
            calls += written.calls
        except ValueError:
            broken = 1
    missing = found.problem == "calls_missing" or found.finish_reason.lower() == "malformed_function_call"
    spoken = {
        "content": text,
        "tool_calls": [{"function": {"name": n, "arguments": a}} for n, a in calls],
    }
    return Heard(
        verdict=Verdict(kind, reason),
        detail=found.detail,
        text=said(spoken) if message else text,
        calls=tuple(calls),
        broken=max(broken, int(missing and not calls)),
    )


def _storable(calls: Sequence[Call]) -> tuple[Call, ...]:
    """The calls, if JSON can hold them: no infinite number, no half of a character."""
    json.dumps(calls, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return tuple(calls)
