"""The messages of a chat, and the calls that wait for a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdfast._rust import ToolCall
from kdfast.teacher.api.reasoning import strip_reasoning

Json = dict[str, Any]


class Conversation:
    """Messages, as a record has them.

    Args:
        system: the system prompt; None = none.

    Examples:
        >>> conversation = Conversation("Be brief.")
        >>> conversation.ask("Is it raining?")
        >>> [message["role"] for message in conversation.messages]
        ['system', 'user']
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.messages: list[Json] = []
        self.waiting: list[tuple[str, str]] = []
        self._calls = 0
        self.start_again()

    def start_again(self) -> None:
        """Forgets all but the system prompt."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        self.waiting = []

    def ask(self, text: str) -> None:
        """Adds what the user says. Calls that wait for a result wait no longer."""
        self.waiting = []
        self.messages.append({"role": "user", "content": text})

    def give_result(self, text: str) -> str:
        """Adds the result of the first call that waits for one.

        Returns:
            The name of the called function.

        Raises:
            IndexError: no call waits.
        """
        id_, name = self.waiting.pop(0)
        self.messages.append({"role": "tool", "tool_call_id": id_, "name": name, "content": text})
        return name

    def answer(self, text: str, calls: Sequence[ToolCall], *, begun_thinking: bool = False) -> None:
        """Adds the model's answer, as a client sends it back: calls apart from the text, thinking left out.

        Args:
            text: the answer.
            calls: the calls that were found in it; each waits for a result now.
            begun_thinking: whether the prompt opened a thinking block.
        """
        content = strip_reasoning(_without(text, calls), opened_by_prompt=begun_thinking).text.strip()
        message: Json = {"role": "assistant", "content": content}
        if calls:
            ids = [self._next_id() for _ in calls]
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for id_, call in zip(ids, calls, strict=True)
            ]
            self.waiting = [(id_, call.name) for id_, call in zip(ids, calls, strict=True)]
        self.messages.append(message)

    def go_back(self, length: int, waiting: list[tuple[str, str]]) -> None:
        """Takes back the messages after the first `length`; `waiting` are the calls that waited then."""
        del self.messages[length:]
        self.waiting = waiting

    def _next_id(self) -> str:
        """Nine letters and digits: Mistral's templates take no other ids."""
        self._calls += 1
        return f"call{self._calls:05}"


def _without(text: str, calls: Sequence[ToolCall]) -> str:
    """The text around the calls."""
    kept, at = [], 0
    for start, end in sorted(call.span for call in calls):
        kept.append(text[at:start])
        at = max(at, end)
    return "".join([*kept, text[at:]])
