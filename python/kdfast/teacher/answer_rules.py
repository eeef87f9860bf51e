"""Whether an answer calls as its prompt allows and demands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdfast.teacher.answer_text import Call, TextCalls, calls_in, hermes_text, schema_fault
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import tool_name

if TYPE_CHECKING:
    from kdfast._rust import ToolSchema

Fault = tuple[str, str]
"""The reason in a fixed word, and in words."""

BESIDE = "calls stand as text beside tool_calls"


def fault_of(
    asked: Asked, structured: Sequence[Call], written: TextCalls, schema: ToolSchema | None
) -> Fault | None:
    """Why a whole answer is not used; None if it is.

    Args:
        asked: the prompt and its request: `tool_choice` and `parallel_tool_calls` as they were sent, or else as the
            record says.
        structured: the calls beside the text, with the tools' own names.
        written: the calls in the text.
        schema: the prompt's tools; None = none.

    Returns:
        `no_valid_call`, `call_not_allowed` or `schema_broken`, and the detail.
    """
    if structured:
        # Beside a call a text may tell what is called: look at it together with one.
        marked = calls_in(
            f"{written.text}\n{hermes_text(*structured[0])}", (*written.formats, "hermes"), schema
        )
        attempts = [attempt for attempt in marked.attempts if attempt[0] < len(written.text)]
        if any(call.span[0] < len(written.text) for call in marked.found):
            return "no_valid_call", BESIDE
    else:
        attempts = list(written.attempts)
    if attempts:
        place, reason = attempts[0]
        return "no_valid_call", f"the text opens a call that is none, at character {place} ({reason})"
    calls = structured or written.calls
    return _choice_fault(asked, calls) or _schema_fault(calls, schema)


def _choice_fault(asked: Asked, calls: Sequence[Call]) -> Fault | None:
    prompt, body = asked.prompt, asked.request.body
    choice = body.get("tool_choice", prompt.tool_choice)
    demanded, names = _demand(choice, asked)
    if not calls:
        due = demanded or prompt.should_call is True
        why = "tool_choice demands a call" if demanded else "the record says that a call is due"
        return ("no_valid_call", f"{why}, and there is none") if due else None
    others = [name for name, _ in calls if names and name not in names]
    parallel = body.get("parallel_tool_calls", prompt.parallel_tool_calls)
    wrong = {
        # A prompt that is a text may name its tools there.
        "the prompt has no tools": not prompt.tools and prompt.messages is not None,
        "tool_choice is none": choice == "none",
        "the record says that none is due": prompt.should_call is False,
        f"it is of {', '.join(others)}, and tool_choice names {', '.join(sorted(names))}": bool(others),
        f"parallel_tool_calls is false, and there are {len(calls)} calls": parallel is False
        and len(calls) > 1,
    }
    reasons = [words for words, holds in wrong.items() if holds]
    return ("call_not_allowed", f"there is a call: {reasons[0]}") if reasons else None


def _demand(choice: Any, asked: Asked) -> tuple[bool, set[str]]:
    """Whether a call must be made, and the names that it may have; none = any."""
    if not isinstance(choice, Mapping):
        return choice == "required", set()
    allowed = choice.get("allowed_tools")
    if isinstance(allowed, Mapping):
        tools, demanded = allowed.get("tools"), allowed.get("mode") == "required"
    else:
        tools, demanded = [choice], True
    named = (tool_name(tool) for tool in tools or () if isinstance(tool, Mapping))
    return demanded, {asked.names.own(name) for name in named if name is not None}


def _schema_fault(calls: Sequence[Call], schema: ToolSchema | None) -> Fault | None:
    words = schema_fault(calls, schema) if schema is not None else ""
    return ("schema_broken", words) if words else None
