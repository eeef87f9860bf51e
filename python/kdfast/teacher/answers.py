"""From a stored answer to a record's answer, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from kdfast.errors import DataError
from kdfast.files import parse_json
from kdfast.teacher.answer_choice import Heard, hear
from kdfast.teacher.answer_text import said
from kdfast.teacher.answer_usage import count_tokens, texts_of, without_halves
from kdfast.teacher.api.journal import Answer, Verdict
from kdfast.teacher.api.journal.entries import MOST_MICRO
from kdfast.teacher.api.price import Price, cost_micro
from kdfast.teacher.api.reply import Origin, read_reply
from kdfast.teacher.api.retry import Outcome, RetryPolicy, Tries, judge_outcome
from kdfast.teacher.api.usage import Usage, said_usage
from kdfast.teacher.asked import Asked
from kdfast.teacher.local.requests import ENDPOINT
from kdfast.teacher.prompts import Prompt
from kdfast.teacher.reading import Reading

if TYPE_CHECKING:
    from kdfast._rust import Tokenizer, ToolSchema

__all__ = ["AnswerReader", "said"]

Json = dict[str, Any]

NO_TOKENS_OF_CALLS = "the server does not say which tokens its calls are"

_MOST_COUNTED_CHARS = 200_000

_MOST_LEVELS = 200
"""Levels of a body's JSON. A fixed number, far below what Python can follow: that depends on who calls."""


class AnswerReader:
    """Reads stored answers. The same answer gives the same `Reading`, in any order and process.

    Args:
        tokenizer: `data.tokenizer`; counts tokens where the server does not.
        formats: the formats of calls that count in texts.
        price: what tokens cost.
        top_logprobs: `api.top_logprobs`; 0 = no log-probabilities are looked for.
    """

    def __init__(
        self, tokenizer: Tokenizer, formats: Sequence[str], price: Price, top_logprobs: int = 0
    ) -> None:
        self._tokenizer = tokenizer
        self._formats = tuple(formats)
        self._price = price
        self._top_logprobs = top_logprobs

    def schema(self, prompt: Prompt) -> ToolSchema | None:
        """The compiled tools of a prompt; None if it has none. Call it for each prompt before money is spent.

        Raises:
            DataError: a tool's parameters are no JSON Schema; with file and line.
        """
        if not prompt.tools:
            return None
        try:
            return _compiled(prompt.tools_text)
        except ValueError as error:  # SchemaError is one
            raise DataError(str(error), str(prompt.source), prompt.line) from None

    def read(self, asked: Asked, answer: Answer) -> Reading:
        """Reads a stored answer: of `chat/completions`, of `completions`, or of a local teacher (as `completions`).

        The kind of the verdict is `accepted`; `filtered`: there is an answer, and it is not used; or `failed`: there is
        none. Of several choices the first one counts.

        Args:
            asked: the prompt and its request.
            answer: what came back, whatever it is.

        Raises:
            DataError: as `schema`; never for what a server sent.
        """
        schema = self.schema(asked.prompt)
        try:
            return self._read(asked, answer, schema)
        except RecursionError:
            return self._failed(asked, answer, "nested_too_deeply", "a text in the body is nested too deeply")

    def _read(self, asked: Asked, answer: Answer, schema: ToolSchema | None) -> Reading:
        document = _document(answer.body)
        if _is_deep(document):
            return self._failed(
                asked, answer, "nested_too_deeply", f"the body has over {_MOST_LEVELS} levels"
            )
        # Of the headers only the target of a redirect says why there is no answer; times are long over.
        headers = {key: value for key, value in answer.headers.items() if key.lower() == "location"}
        outcome = Outcome(status=answer.status, headers=headers, body=answer.body)
        decision = judge_outcome(outcome, Tries(), RetryPolicy(), now=0.0, rng=Random(0))  # noqa: S311
        if decision.action != "accept":
            return self._failed(asked, answer, decision.reason, decision.words)
        try:
            reply = read_reply(document, asked.names, opened_by_prompt=asked.thinking == "open")
        except ValueError as error:
            return self._failed(asked, answer, "repeated_index", str(error))
        choices, found = document["choices"], reply.answers[0]
        choice = _raw_choice(choices, found.index)
        heard = hear(asked, choice, found, self._formats, schema)
        if len(choices) > 1:
            more = f"{len(choices) - 1} more choices are not used"
            heard = replace(heard, detail="; ".join(filter(None, (heard.detail, more))))
        usage, counted = said_usage(document), False
        reasoning = [one.reasoning for one in reply.answers if one.reasoning]
        thought = usage.reasoning_tokens if usage else 0
        if not thought and reasoning:
            thought = count_tokens(self._tokenizer, reasoning)
        if usage is None:
            output, counted = count_tokens(self._tokenizer, texts_of(choices)), True
            usage = Usage(
                input_tokens=asked.input_tokens, output_tokens=output, reasoning_tokens=min(thought, output)
            )
        learned, logprobs = self._with_logprobs(heard, choice)
        return Reading(
            verdict=heard.verdict,
            detail=without_halves(heard.detail),
            answer=learned,
            text=heard.text,
            calls=heard.calls,
            broken_calls=heard.broken,
            usage=usage,
            usage_counted=counted,
            cost_micro=self._cost(asked, usage, counted),
            origin=Origin(*(name and without_halves(name) for name in _names(reply.origin))),
            reasoning_tokens=thought,
            logprobs=logprobs,
        )

    def _with_logprobs(self, heard: Heard, choice: Mapping[str, Any]) -> tuple[Json, str]:
        """The record's keys, and why log-probabilities are not among them."""
        if not self._top_logprobs or heard.verdict.kind != "accepted":
            return heard.answer, ""
        if heard.learned is None:
            return heard.answer, NO_TOKENS_OF_CALLS
        from kdfast.teacher.api.align import teacher_topk

        topk, why = teacher_topk(choice, heard.learned, self._tokenizer)
        if topk is None:
            return heard.answer, why
        # A message would be rendered anew; the lists belong to the tokens of this very text.
        return {"teacher_text": heard.learned, "teacher_topk": topk}, ""

    def _failed(self, asked: Asked, answer: Answer, reason: str, words: str) -> Reading:
        """There is no answer. What it cost is not told here: the job decides."""
        usage, counted = Usage(input_tokens=0, output_tokens=0), False
        stated = said_usage(_document(answer.body))
        if stated is not None:
            usage = stated
        elif 200 <= answer.status < 300:
            body = answer.body.decode("utf-8", "replace")[:_MOST_COUNTED_CHARS]
            output = count_tokens(self._tokenizer, [body])
            usage, counted = Usage(input_tokens=asked.input_tokens, output_tokens=output), True
        return Reading(
            verdict=Verdict("failed", reason),
            detail=without_halves(words),
            usage=usage,
            usage_counted=counted,
            cost_micro=None,
        )

    def _cost(self, asked: Asked, usage: Usage, counted: bool) -> int | None:
        """None if nobody could pay it."""
        if asked.request.endpoint == ENDPOINT:
            return 0  # nobody charges the answers of this machine
        cost = cost_micro(self._price, usage)
        if cost > MOST_MICRO:
            return None
        # The server stops at the limit of tokens, so that what is counted here may be too much, never too little.
        return min(cost, asked.worst_micro) if counted and asked.worst_micro else cost


@lru_cache(maxsize=256)
def _compiled(tools: str) -> ToolSchema:
    from kdfast._rust import ToolSchema

    return ToolSchema(tools)


def _raw_choice(choices: Sequence[Mapping[str, Any]], index: int) -> Mapping[str, Any]:
    """The choice of this number, or at this place where choices have none."""
    numbered = [choice for choice in choices if choice.get("index") == index and type(choice["index"]) is int]
    return numbered[0] if numbered else choices[index]


def _names(origin: Origin) -> tuple[str | None, str | None, str | None]:
    return origin.model, origin.provider, origin.system_fingerprint


def _document(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError:
        return None


def _is_deep(document: Any) -> bool:
    level = [document]
    for _ in range(_MOST_LEVELS):
        inner = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        level = [value for values in inner for value in values]
        if not level:
            return False
    return True
