"""A server's reply as kdfast's answer: the message or text, without reasoning, or the reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kdfast.teacher.api.error_words import one_line
from kdfast.teacher.api.reasoning import PARTS, reasoning_of_fields, reasoning_of_part, strip_reasoning
from kdfast.teacher.api.reply_calls import Json, ReplyError, read_calls
from kdfast.teacher.api.tool_names import ToolNames

Finish = Literal["stop", "length", "tool_calls"]

_FINISHES: dict[str, Finish] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call"), "tool_calls"),
}
_FILTERED = ("content_filter", "safety", "recitation", "prohibited_content")
_BROKEN_OFF = ("error", "abort", "cancelled", "insufficient_system_resource", "malformed_function_call")


@dataclass(frozen=True)
class Origin:
    """Who answered. If it changes within a run, the answers are of two teachers.

    Attributes:
        model: the model that the server names in its reply.
        provider: the house behind a router.
        system_fingerprint: the server's own mark of its set-up.

    Examples:
        >>> Origin("m-1", system_fingerprint="fp_4").text(), Origin().text()
        ('m-1 / fp_4', 'one that says no name')
    """

    model: str | None = None
    provider: str | None = None
    system_fingerprint: str | None = None

    def text(self) -> str:
        """Who answered, in words."""
        named = (self.model, self.provider, self.system_fingerprint)
        return " / ".join(name for name in named if name is not None) or "one that says no name"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One choice of a reply.

    Attributes:
        index: its number among the choices.
        message: the assistant's message as a record's `teacher_message` holds it; None for a completion, and if there
            is a problem.
        text: the text of a completion, as `teacher_text`; else None.
        finish: why the server stopped; `length`: the answer is cut, and no end of turn is to be learned.
        finish_reason: the server's own word for it; "" if it gave none.
        reasoning: the reasoning that was taken out; for the journal and for counting only.
        reasoning_blocks: how many blocks of it stood in the text.
        problem: why this is no answer, in a fixed word such as `refusal`, `broken_arguments`, `cut`; "" if it is one.
        detail: the problem in words.
    """

    index: int
    message: Json | None = None
    text: str | None = None
    finish: Finish | None = None
    finish_reason: str = ""
    reasoning: str = field(default="", repr=False)
    reasoning_blocks: int = 0
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Reply:
    """A whole reply.

    Attributes:
        answers: one a choice, in the order of their numbers.
        origin: who answered.
        id: the server's number of the reply; "" if it gave none.
    """

    answers: tuple[Answer, ...]
    origin: Origin
    id: str = ""


def read_reply(
    document: Mapping[str, Any], names: ToolNames | None = None, *, opened_by_prompt: bool = False
) -> Reply:
    """Reads a reply that `judge_outcome` accepted: of `chat/completions` or of `completions`.

    Args:
        document: the parsed body.
        names: the mapping that the request was sent with; its calls get the tools' own names back.
        opened_by_prompt: whether the prompt of a completion ends with the opening of a block of reasoning.

    Raises:
        ValueError: there are no choices.

    Example:
        >>> message = {"role": "assistant", "content": "<think>Hm.</think>Yes."}
        >>> reply = read_reply({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})
        >>> reply.answers[0].message, reply.answers[0].reasoning, reply.origin.model
        ({'role': 'assistant', 'content': 'Yes.'}, 'Hm.', 'm')
    """
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError("the reply has no choices")
    names = names or ToolNames([])
    objects = (choice if isinstance(choice, Mapping) else {} for choice in choices)
    answers = [
        _Reading(choice, place, names, opened_by_prompt).answer() for place, choice in enumerate(objects)
    ]
    if len({answer.index for answer in answers}) < len(answers):
        raise ValueError(f"two choices have the same index: {[answer.index for answer in answers]}")
    origin = Origin(*(_text_of(document, key) for key in ("model", "provider", "system_fingerprint")))
    return Reply(
        tuple(sorted(answers, key=lambda answer: answer.index)), origin, _text_of(document, "id") or ""
    )


@dataclass
class _Reading:
    """Reads one choice. Reasoning is kept aside also if the choice turns out to be no answer."""

    choice: Mapping[str, Any]
    place: int
    names: ToolNames
    opened_by_prompt: bool
    reasoning: list[str] = field(default_factory=list)
    blocks: int = 0

    def answer(self) -> Answer:
        index = self.choice.get("index")
        number = index if isinstance(index, int) and not isinstance(index, bool) else self.place
        finish_reason = _text_of(self.choice, "finish_reason") or ""
        message = text = finish = None
        problem = detail = ""
        try:
            finish = _finish_of(self.choice, finish_reason)
            if isinstance(self.choice.get("message"), Mapping):
                message = self._message(self.choice["message"], finish)
                _check_storable(message)
            elif isinstance(self.choice.get("text"), str):
                text = self._completion(self.choice["text"], finish)
                _check_storable(text)
            else:
                raise ReplyError("no_message", "the choice has neither a message nor a text")
        except ReplyError as found:
            cut = finish == "length" and found.reason in ("broken_arguments", "empty", "calls_missing")
            problem, detail, message, text = "cut" if cut else found.reason, one_line(str(found)), None, None
        return Answer(
            index=number,
            message=message,
            text=text,
            finish=finish,
            finish_reason=finish_reason,
            reasoning="\n\n".join(self.reasoning),
            reasoning_blocks=self.blocks,
            problem=problem,
            detail=detail,
        )

    def _message(self, given: Mapping[str, Any], finish: Finish) -> Json:
        beside = reasoning_of_fields(given)
        if beside:
            self.reasoning.append(beside)
        if given.get("role") not in (None, "", "assistant"):
            raise ReplyError("role", f"the message is of role {given['role']!r}")
        if given.get("refusal"):
            raise ReplyError("refusal", f"the model refuses: {given['refusal']}")
        content = self._said(self._content(given.get("content")), finish, opened_by_prompt=False)
        calls = read_calls(self.names.to_message({**given, "role": "assistant"}))
        if finish == "tool_calls" and not calls:
            raise ReplyError("calls_missing", "the server stopped for a call, and there is none")
        if calls:
            return {"role": "assistant", "content": content if content.strip() else None, "tool_calls": calls}
        if not content.strip():
            raise ReplyError("empty", "content and tool_calls are both empty")
        return {"role": "assistant", "content": content}

    def _completion(self, given: str, finish: Finish) -> str:
        text = self._said(given, finish, self.opened_by_prompt)
        if not text.strip():
            raise ReplyError("empty", "the text is empty")
        return text

    def _content(self, given: Any) -> str:
        if given is None or isinstance(given, str):
            return given or ""
        if not isinstance(given, list):
            raise ReplyError("broken_content", f"content: expected text, got {type(given).__name__}")
        texts: list[str] = []
        for part in given:
            kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
            if kind in PARTS:
                self.reasoning.append(reasoning_of_part(part))
            elif kind == "refusal":
                raise ReplyError("refusal", f"the model refuses: {part.get('refusal')}")
            elif kind in ("text", "output_text") and isinstance(part.get("text"), str):
                texts.append(part["text"])
            else:
                raise ReplyError("broken_content", f"content: a part that is no text: {kind!r}")
        return "".join(texts)

    def _said(self, text: str, finish: Finish, opened_by_prompt: bool) -> str:
        stripped = strip_reasoning(text, opened_by_prompt)
        self.blocks += stripped.blocks
        if stripped.reasoning:
            self.reasoning.append(stripped.reasoning)
        if stripped.open:
            reason = "cut" if finish == "length" else "reasoning_not_closed"
            raise ReplyError(reason, "the reasoning is not closed: there is no answer after it")
        return stripped.text


def _finish_of(choice: Mapping[str, Any], finish_reason: str) -> Finish:
    word = finish_reason.lower()
    if choice.get("error"):
        raise ReplyError("error_in_choice", json.dumps(choice["error"], ensure_ascii=False))
    if word in _FILTERED:
        raise ReplyError("content_filter", f"the server filtered the answer ({finish_reason})")
    if word == "refusal":
        raise ReplyError("refusal", "the model refuses")
    if word in _BROKEN_OFF:
        raise ReplyError("broken_off", f"the server broke off the answer ({finish_reason})")
    if word not in _FINISHES:
        # Without it nobody knows whether the answer is whole.
        raise ReplyError(
            "unknown_finish", f"finish_reason: expected 'stop' or the like, got {finish_reason!r}"
        )
    return _FINISHES[word]


def _check_storable(answer: Json | str) -> None:
    """Checks that a record can hold it: no infinite number (1e999), no half of a character, not too deep."""
    try:
        json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ReplyError("not_unicode", "the answer has a half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise ReplyError("broken_arguments", f"the answer is no strict JSON: {error}") from None


def _text_of(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) and value else None
