"""One answer, token by token: its text as it comes, its calls, its times."""

from __future__ import annotations

import codecs
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdfast._rust import (
    Tokenizer,
    ToolCall,
    ToolCallStream,
    ToolSchema,
    find_attempted_calls,
    find_tool_calls,
)
from kdfast.recipes.chat.prompt import ChatPrompt
from kdfast.speed import Engine

Clock = Callable[[], float]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TextStream:
    """The text of tokens, piece by piece: a character that spans tokens comes when it is whole.

    Args:
        tokenizer: the model's own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """The text that is certain now; "" within a character."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """The end of the text: a replacement character, if the last one is not whole."""
        return self._decoder.decode(b"", final=True)


def printable(text: str) -> str:
    r"""The text without what would steer the terminal: other control characters than tab and line end are spelled out.

    Example:
        >>> printable("a\x1b[2Jb\n")
        'a\\x1b[2Jb\n'
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """When an answer is over, and which calls in it count.

    Attributes:
        end_ids: token ids that end it.
        most: it is cut after this many tokens, at least 1.
        formats: the call formats that count.
        schema: what a call must satisfy to be valid; None = every well-formed call is.
    """

    end_ids: frozenset[int]
    most: int
    formats: Sequence[str]
    schema: ToolSchema | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer. The times are those of the engine: what is printed meanwhile is not counted.

    Attributes:
        ids: its tokens in order, with the one that ended it.
        ended: whether the model ended it; False = the limit or the user did.
        stopped: whether the user stopped it.
        text: the text, without the token that ended it.
        calls: the calls in it, valid or not.
        attempts: reasons of what opens like a call and gives none.
        prefill_ms: time to read the prompt.
        steps_ms: time of each token.
        first_action: number of tokens up to the end of the first valid call; None = there is none.
    """

    ids: Sequence[int]
    ended: bool
    stopped: bool
    text: str
    calls: Sequence[ToolCall]
    attempts: Sequence[str]
    prefill_ms: float
    steps_ms: Sequence[float]
    first_action: int | None

    @property
    def ttft_ms(self) -> float:
        """Time to the first token; the prompt's tokens are ready when it starts."""
        return self.prefill_ms + self.steps_ms[0]

    @property
    def tps(self) -> float | None:
        """Tokens per second after the first token; None if there is only one."""
        later = self.steps_ms[1:]
        return 1000 * len(later) / math.fsum(later) if later and math.fsum(later) > 0 else None

    @property
    def ttfa_ms(self) -> float | None:
        """Time to the end of the first valid call; None if there is none."""
        if self.first_action is None:
            return None
        return self.prefill_ms + math.fsum(self.steps_ms[: self.first_action])


def generate_answer(
    engine: Engine,
    prompt: ChatPrompt,
    tokenizer: Tokenizer,
    rules: AnswerRules,
    *,
    on_text: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    clock: Clock = time.perf_counter,
) -> Answer:
    """Generates the answer to a prompt, greedily.

    Args:
        engine: the model.
        prompt: the prompt.
        tokenizer: the model's own.
        rules: when the answer is over, and which calls count.
        on_text: called with each piece of text, as soon as it is certain.
        stop: asked after every token whether the user wants no more.
        clock: gives the time in seconds.

    Raises:
        FloatingPointError: the model's logits are NaN.
    """
    calls = ToolCallStream(rules.schema, rules.formats, tokenizer, thinking=prompt.thinking)
    text = TextStream(tokenizer)
    engine.reset()
    started = clock()
    engine.prefill(prompt.ids)
    prefill_ms = 1000 * (clock() - started)
    ids: list[int] = []
    steps_ms: list[float] = []
    ended = stopped = False
    while not ended and not stopped and len(ids) < rules.most:
        started = clock()
        ids.append(engine.next())
        steps_ms.append(1000 * (clock() - started))
        ended = ids[-1] in rules.end_ids
        if not ended:
            calls.feed_tokens(ids[-1:])
            on_text(text.feed(ids[-1]))
        stopped = not ended and stop()
    engine.reset()
    on_text(text.finish())
    whole = tokenizer.decode(ids[:-1] if ended else ids)
    place = calls.complete_at_token
    return Answer(
        ids=ids,
        ended=ended,
        stopped=stopped,
        text=whole,
        calls=find_tool_calls(whole, rules.formats, tools=rules.schema, thinking=prompt.thinking),
        attempts=[
            reason
            for _, reason in find_attempted_calls(
                whole, rules.formats, tools=rules.schema, thinking=prompt.thinking
            )
        ],
        prefill_ms=prefill_ms,
        steps_ms=steps_ms,
        first_action=None if place is None else place + 1,
    )
