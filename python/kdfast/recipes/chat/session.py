"""A chat: what is typed goes to the model or is a command, and every answer is shown with its calls and times."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console

from kdfast.errors import ConfigError, DataError, KdfastError
from kdfast.recipes.chat.answer import Answer, AnswerRules, generate_answer, printable
from kdfast.recipes.chat.conversation import Conversation
from kdfast.recipes.chat.prompt import ChatPrompt, PromptMaker, shown_arguments
from kdfast.recipes.loaded_model import Runtime

HELP = """\
  type a sentence      the model answers
  /result TEXT         answer a call in the tool's place; the model goes on when all calls are answered
  /new                 start again: forget the conversation, keep the system prompt
  /help                this list
  /quit, Ctrl-D        leave
  Ctrl-C               stop the answer; at the prompt: leave"""

_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)


@dataclass(kw_only=True)
class Session:
    """A chat with one model.

    Attributes:
        name: what the user named, for messages.
        runtime: the model.
        maker: makes its prompts.
        room: the most tokens of prompt and answer.
        max_new_tokens: an answer is cut after this many tokens.
        conversation: what was said.
        console: where everything is shown.
        forget: whether each sentence starts a new conversation.
        interactive: whether a person types. Else the first mistake ends the chat: a script must see it.
    """

    name: str
    runtime: Runtime
    maker: PromptMaker
    room: int
    max_new_tokens: int
    conversation: Conversation
    console: Console
    forget: bool = False
    interactive: bool = True
    _over: bool = field(default=False, init=False)

    def run(self, lines: Iterable[str]) -> None:
        """Answers lines until there are no more, or one says /quit.

        Raises:
            ConfigError, DataError: a line cannot be answered, and no person types; or the model's logits are NaN.
        """
        for line in lines:
            try:
                self._take(line.strip())
            except _Refused as error:
                if not self.interactive:
                    raise error.cause from None
                self.say(f"  {error.cause}")
            if self._over:
                return

    def _take(self, line: str) -> None:
        command = _COMMAND.fullmatch(line)
        if command is not None:
            self._obey(command[1], command[2] or "")
        elif line:
            if self.forget:
                self.conversation.start_again()
            length, waiting = len(self.conversation.messages), self.conversation.waiting
            self.conversation.ask(line)
            self._answer(length, waiting)

    def _obey(self, name: str, text: str) -> None:
        match name:
            case "new":
                self.conversation.start_again()
                self.say("  a new conversation")
            case "help":
                self.say(HELP)
            case "quit" | "exit":
                self._over = True
            case "result":
                self._give_result(text.strip())
            case _:
                raise _Refused(ConfigError(f"there is no such command; /help shows them: /{name}"))

    def _give_result(self, text: str) -> None:
        waiting = list(self.conversation.waiting)
        if not waiting:
            raise _Refused(
                ConfigError("/result: no call waits for a result; ask for something that needs one")
            )
        if not text:
            name = printable(waiting[0][1])
            raise _Refused(
                ConfigError(f"/result: give the result, such as '/result 21 degrees': {name} waits")
            )
        length = len(self.conversation.messages)
        self.conversation.give_result(text)
        if self.conversation.waiting:
            self.say(f"  {self.conversation.waiting[0][1]} waits for its result")
        else:
            self._answer(length, waiting)

    def _answer(self, length: int, waiting: list[tuple[str, str]]) -> None:
        """Lets the model answer. If it cannot, the conversation is again as it was: `length` messages."""
        try:
            prompt = self.maker.make(self.conversation.messages)
            free = self.room - len(prompt.ids)
            if free < 1:
                raise DataError(
                    f"the conversation is full; /new starts again: {len(prompt.ids)} tokens of {self.room}"
                )
        except KdfastError as error:
            self.conversation.go_back(length, waiting)
            raise _Refused(error) from None
        answer = self._generate(prompt, min(self.max_new_tokens, free))
        self._show(answer, len(prompt.ids), free)
        self.conversation.answer(answer.text, answer.calls, begun_thinking=prompt.thinking == "open")
        if answer.calls:
            self.say(f"  /result TEXT answers in the place of {answer.calls[0].name}")

    def _generate(self, prompt: ChatPrompt, most: int) -> Answer:
        rules = AnswerRules(
            end_ids=frozenset({*self.runtime.end_ids, *prompt.turn_end_ids[-1:]}),
            most=most,
            formats=self.maker.formats,
            schema=self.maker.schema,
        )
        with CtrlC(catch=self.interactive) as pressed:
            try:
                answer = generate_answer(
                    self.runtime.engine,
                    prompt,
                    self.maker.tokenizer,
                    rules,
                    on_text=lambda text: self.say(text, end=""),
                    stop=lambda: pressed.asked,
                )
            except FloatingPointError as error:
                raise DataError(f"cannot answer: {error}", self.name) from error
        self.say("")
        return answer

    def _show(self, answer: Answer, prompt_tokens: int, free: int) -> None:
        for line in call_lines(answer, self.maker):
            self.say(line)
        if answer.stopped:
            self.say("  stopped")
        elif not answer.ended and len(answer.ids) == free:
            self.say(f"  cut: the conversation is full ({self.room} tokens); /new starts again")
        elif not answer.ended:
            self.say(f"  cut after {len(answer.ids)} tokens; --max-new-tokens allows more")
        self.say(time_line(answer, prompt_tokens, with_tools=bool(self.maker.tools)))

    def say(self, text: str, end: str = "\n") -> None:
        """Shows text. Whoever wrote it, a user, a tool's author or the model: it does not steer the terminal.

        What the output's encoding lacks is spelled out.
        """
        known = (
            printable(text).encode(self.console.encoding, "backslashreplace").decode(self.console.encoding)
        )
        self.console.out(known, end=end, highlight=False)


def call_lines(answer: Answer, maker: PromptMaker) -> list[str]:
    """The calls of an answer, each valid or not and why, and what was begun like a call."""
    lines = []
    for call in answer.calls:
        issues: list[dict[str, Any]] = []
        verdict = "not checked: no tools were given"
        if maker.schema is not None:
            issues = maker.schema.issues(call)
            verdict = "not valid" if issues else "valid"
        lines.append(f"  call: {call.name} {shown_arguments(call.arguments)}  ({verdict})")
        lines += [f"    {issue['instance_path'] or '/'}: {issue['message']}" for issue in issues]
    lines += [f"  no call: one was begun ({reason})" for reason in answer.attempts]
    return lines


def time_line(answer: Answer, prompt_tokens: int, *, with_tools: bool) -> str:
    """How long the answer took. What could not be measured is left out."""
    parts = [
        f"prompt {prompt_tokens} tokens",
        f"first token {answer.ttft_ms:.0f} ms",
        f"answer {len(answer.ids)} tokens",
    ]
    if answer.tps is not None:
        parts.append(f"{answer.tps:.1f} tokens/s")
    if answer.ttfa_ms is not None:
        parts.append(f"first valid call after {answer.first_action} tokens, {answer.ttfa_ms:.0f} ms")
    elif with_tools:
        parts.append("no valid call")
    return f"  [{', '.join(parts)}]"


class CtrlC:
    """Inside the block, the first Ctrl-C only sets `asked`; the second one is Python's own.

    Args:
        catch: False = change nothing.
    """

    def __init__(self, *, catch: bool) -> None:
        self.asked = False
        self._catch = catch and threading.current_thread() is threading.main_thread()
        self._before: Any = None

    def __enter__(self) -> Self:
        if self._catch:
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._catch:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class _Refused(Exception):  # noqa: N818 - no failure of the chat: it goes on if a person types
    """A line that cannot be answered; nothing has changed."""

    def __init__(self, cause: KdfastError) -> None:
        super().__init__(str(cause))
        self.cause = cause
