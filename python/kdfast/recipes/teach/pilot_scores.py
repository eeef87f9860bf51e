"""One answer of a pilot against the right one, by BFCL's rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdfast.errors import SchemaError
from kdfast.evaluate.table import why_wrong
from kdfast.scoring import FORMATS, Score, accepted_from_calls, score_calls
from kdfast.scoring.match import Call
from kdfast.teacher.api.journal import Answer
from kdfast.teacher.api.reply_calls import ReplyError, read_calls
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt
from kdfast.teacher.reading import Reading

if TYPE_CHECKING:
    from kdfast._rust import ToolSchema

SCHEMA_BROKEN = "schema_broken"
"""The reason of the verdict on an answer whose call breaks its tool's schema."""


@dataclass(frozen=True, kw_only=True)
class ScoredAnswer:
    """One prompt of a pilot, and how its answer compares with the right one.

    Attributes:
        line: the prompt's line.
        score: None if there is no answer and no call was due: nobody knows whether it would have been a false call.
        failed: why there is no answer; "" if there is one.
        filtered: why the answer would not go into the dataset; "" if it would, or if there is none.
        right: the right answer as text.
        said: what the teacher said.
        bad_tools: whether the tools are no valid JSON Schema, so that no call is valid.
    """

    line: int
    score: Score | None
    failed: str
    filtered: str
    right: str
    said: str
    bad_tools: bool

    @property
    def why(self) -> str:
        """Why the answer is not right; "" if it is, or if nobody knows."""
        if self.score is None:
            return ""
        if self.failed:
            return f"no answer: {self.failed}"
        why = why_wrong(self.score.to_json())
        if not why and self.score.should_call and not self.score.schema_valid:
            why = "the call breaks its tool's schema"
        return f"{why} (filtered: {self.filtered})" if why and self.filtered else why

    @property
    def rank(self) -> int:
        """How bad the answer is, 0 the worst: a false call, no call, a broken one, one that is not valid, another."""
        score = self.score
        if score is None:
            return 5
        order = (score.false_call, score.missed_call, score.broken_call, not score.schema_valid)
        return next((rank for rank, applies in enumerate(order) if applies), 4)


def score_asked(
    asked: Asked, answer: Answer | None, reading: Reading | None, formats: Sequence[str] = FORMATS
) -> ScoredAnswer:
    """Scores one answer.

    A prompt without an answer counts as one without a call if a call is due.

    Args:
        asked: the prompt and its request.
        answer: the stored answer; None = there is none.
        reading: what was read from it; None = nothing.
        formats: the call formats that count in a right answer that is a text.

    Raises:
        ValueError: nothing says what is right for the prompt.
    """
    prompt = asked.prompt
    schema, bad_tools = _schema(prompt)
    accepted, should_call = _right(asked, schema, formats)
    failed = filtered = ""
    if reading is None or reading.verdict.kind == "failed":
        verdict = reading.verdict if reading is not None else None if answer is None else answer.verdict
        failed = (verdict and verdict.reason) or "no answer came"
        reading = None
    elif reading.verdict.kind == "filtered":
        filtered = reading.verdict.reason or "no reason is given"
    calls = () if reading is None else reading.calls
    score = score_calls(
        calls,
        all_valid=not bad_tools and filtered != SCHEMA_BROKEN and _all_valid(calls, schema),
        accepted=accepted,
        tools=prompt.tools,
        should_call=should_call,
        broken=0 if reading is None else reading.broken_calls,
    )
    return ScoredAnswer(
        line=prompt.line,
        score=None if failed and not should_call else score,
        failed=failed,
        filtered=filtered,
        right=right_text(prompt),
        said="" if reading is None else reading.text,
        bad_tools=bad_tools,
    )


def right_text(prompt: Prompt) -> str:
    """The right answer for people.

    Args:
        prompt: the prompt.
    """
    truth = prompt.truth
    if truth is None:
        return "no call"
    if truth.accepted:
        return "; ".join(_call_text(name, values) for call in truth.accepted for name, values in call.items())
    if truth.message is None:
        return truth.text or ""
    content = truth.message.get("content")
    calls = "; ".join(_call_text(*call) for call in _calls(truth.message))
    return calls or (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))


def _schema(prompt: Prompt) -> tuple[ToolSchema | None, bool]:
    """The tools, and whether they are bad; (None, False) if there are none."""
    from kdfast._rust import ToolSchema

    if not prompt.tools:
        return None, False
    try:
        return ToolSchema([dict(tool) for tool in prompt.tools]), False
    except SchemaError:
        return None, True


def _right(
    asked: Asked, schema: ToolSchema | None, formats: Sequence[str]
) -> tuple[list[dict[str, Any]], bool]:
    """BFCL's ground truth and whether a call is due."""
    prompt, truth = asked.prompt, asked.prompt.truth
    accepted: list[dict[str, Any]] = []
    if truth is not None and truth.accepted:
        accepted = truth.accepted
    elif truth is not None and truth.message is not None:
        accepted = accepted_from_calls(_calls(truth.message))
    elif truth is not None and truth.text is not None:
        accepted = accepted_from_calls(_calls_in_text(truth.text, schema, formats, asked.thinking))
    elif prompt.should_call is None:
        raise ValueError(f"a pilot needs prompts with a right answer: line {prompt.line}")
    should_call = bool(accepted) if prompt.should_call is None else prompt.should_call
    return (accepted if should_call else []), should_call


def _calls(message: dict[str, Any]) -> list[Call]:
    """The calls of a right answer; none if they cannot be read: then no answer is right."""
    calls = message.get("tool_calls")
    if isinstance(calls, list):  # in a record, name and arguments may also stand in the call itself
        calls = [{"function": call} if isinstance(call, dict) and "name" in call else call for call in calls]
    try:
        functions = [call["function"] for call in read_calls({**message, "tool_calls": calls})]
    except ReplyError:
        return []
    return [(function["name"], function["arguments"]) for function in functions]


def _calls_in_text(text: str, schema: ToolSchema | None, formats: Sequence[str], thinking: str) -> list[Call]:
    from kdfast._rust import find_tool_calls

    found = find_tool_calls(text, formats, tools=schema, thinking=thinking)
    return [(call.name, call.arguments) for call in found]


def _all_valid(calls: Sequence[Call], schema: ToolSchema | None) -> bool:
    return schema is None or all(
        schema.is_valid(json.dumps({"name": name, "arguments": arguments})) for name, arguments in calls
    )


def _call_text(name: str, arguments: Any) -> str:
    return f"{name}({json.dumps(arguments, ensure_ascii=False)})"
