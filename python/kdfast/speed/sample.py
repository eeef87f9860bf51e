"""A prompt to measure with, and the measurements of its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.config.choices import Thinking
from kdfast.scoring import FORMATS, Score, score_answer, thinking_after


@dataclass(frozen=True, kw_only=True)
class SpeedPrompt:
    """One prompt.

    Attributes:
        text: the rendered prompt; tokenising it is part of the measurement.
        tools: the tool definitions, as JSON text ("" = none: then every well-formed call is valid).
        needs_call: whether a tool call is due; only then is there a time to the first action.
        shortest_call_tokens: the length of the shortest right call; None = there is no ground truth.
        shape: the padded length that this row would have in training; a report also has the metrics of each shape.
        line: the line of the record in its file; None = not from a file.
        reference: the right answer; answers are compared with its calls if `accepted` is None.
        accepted: BFCL's ground truth, one `{function: {argument: [values]}}` per call; None = the reference's calls.
    """

    text: str
    tools: str = ""
    needs_call: bool = False
    shortest_call_tokens: int | None = None
    shape: int | None = None
    line: int | None = None
    reference: str = ""
    accepted: Sequence[Mapping[str, Any]] | None = None

    @property
    def thinking(self) -> Thinking:
        """Whether the prompt opens a thinking block, so that the answer begins inside it."""
        return thinking_after(self.text)


def prompts_fingerprint(prompts: Iterable[SpeedPrompt]) -> str:
    """SHA-256 (hex) over text, tools and `needs_call` of each prompt, in the order of the prompts."""
    total = hashlib.sha256()
    for prompt in prompts:
        total.update(json.dumps([prompt.text, prompt.tools, prompt.needs_call]).encode() + b"\n")
    return total.hexdigest()


def truth_fingerprint(prompts: Iterable[SpeedPrompt]) -> str:
    """SHA-256 (hex) over what answers are scored against, in the order of the prompts.

    For a prompt that needs a call these are the accepted values, or the right answer if there are none. For a prompt
    that needs no call it is only that fact.

    Example:
        >>> one, other = (SpeedPrompt(text="x", needs_call=True, accepted=[{"f": {"n": [n]}}]) for n in (1, 2))
        >>> truth_fingerprint([one]) == truth_fingerprint([other])
        False
    """
    total = hashlib.sha256()
    for prompt in prompts:
        known = prompt.reference if prompt.accepted is None else prompt.accepted
        total.update(json.dumps(known if prompt.needs_call else None).encode() + b"\n")
    return total.hexdigest()


@dataclass(frozen=True, kw_only=True)
class SpeedSample:
    """The raw measurements of one answer.

    For the three `ttfa` attributes: inf = no valid call came (`cut` says whether one may have followed); None = no call
    is due.

    Attributes:
        prompt: the prompt.
        prompt_tokens: the length of the prompt in tokens.
        ids: the generated token ids in order, including the one that ended the answer.
        text: the answer, without the token that ended it.
        ended: whether the model ended the answer; False = `max_new_tokens` did.
        tokenise_ms: time to turn the text into token ids.
        prefill_ms: time to read the prompt into the cache.
        first_token_ms: time from then to the first token.
        itl_ms: inter-token latencies, one for each token after the first.
        ttfa_tokens: number of tokens up to and including the one that completed the first valid call.
        ttfa_name_tokens: number of tokens up to and including the one that closed that call's function name.
        ttfa_ms: time from the start to the last token of that call.
        thinking_tokens: number of tokens of the answer that belong to thinking blocks, marks included.
    """

    prompt: SpeedPrompt
    prompt_tokens: int
    ids: Sequence[int]
    text: str
    ended: bool
    tokenise_ms: float
    prefill_ms: float
    first_token_ms: float
    itl_ms: Sequence[float]
    ttfa_tokens: float | None
    ttfa_name_tokens: float | None
    ttfa_ms: float | None
    thinking_tokens: int = 0

    @property
    def cut(self) -> bool:
        """Whether `max_new_tokens` stopped the answer before the valid call that is due: it may have come later."""
        return not self.ended and self.ttfa_tokens == float("inf")

    @property
    def ttft_ms(self) -> float:
        """Time to the first token, tokenising included."""
        return self.tokenise_ms + self.prefill_ms + self.first_token_ms

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token after the first; None if there is only one token."""
        return sum(self.itl_ms) / len(self.itl_ms) if self.itl_ms else None

    @property
    def tps(self) -> float | None:
        """Tokens per second after the first token; None if there is only one."""
        return 1000 / self.tpot_ms if self.tpot_ms else None

    @property
    def ttfa_overhead_tokens(self) -> float | None:
        """`ttfa_tokens` minus the shortest right call; None if no call is due, or no ground truth is known."""
        shortest = self.prompt.shortest_call_tokens
        return None if self.ttfa_tokens is None or shortest is None else self.ttfa_tokens - shortest

    def score(self, formats: Sequence[str] = FORMATS) -> Score:
        """Scores the tool calls of the answer.

        Args:
            formats: the call formats that count, see `kdfast.find_tool_calls`.

        Raises:
            SchemaError: the parameters of the prompt's tools are not a valid JSON Schema.
        """
        return score_answer(
            self.text,
            json.loads(self.prompt.tools or "[]"),
            accepted=self.prompt.accepted,
            reference_text=self.prompt.reference,
            should_call=self.prompt.needs_call,
            formats=formats,
            thinking=self.prompt.thinking,
            finished=self.ended,
        )

    def values(self) -> dict[str, float | Sequence[float]]:
        """Every metric that this answer has, by its name in a report."""
        found: dict[str, float | Sequence[float] | None] = {
            "ttft_ms": self.ttft_ms,
            "ttft_tokenise_ms": self.tokenise_ms,
            "ttft_prefill_ms": self.prefill_ms,
            "ttft_first_token_ms": self.first_token_ms,
            "itl_ms": self.itl_ms,
            "tpot_ms": self.tpot_ms,
            "tps": self.tps,
            "ttfa_tokens": self.ttfa_tokens,
            "ttfa_name_tokens": self.ttfa_name_tokens,
            "ttfa_overhead_tokens": self.ttfa_overhead_tokens,
            "ttfa_ms": self.ttfa_ms,
            "prompt_tokens": float(self.prompt_tokens),
            "output_tokens": float(len(self.ids)),
            "thinking_tokens": float(self.thinking_tokens) if self.thinking_tokens else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """The prompt's entry in a report. It has no `itl_ms`: the report's metric has all of them, in order."""
        numbers = {name: value for name, value in self.values().items() if isinstance(value, float)}
        return {
            "line": self.prompt.line,
            "fingerprint": prompts_fingerprint([self.prompt]),
            "shape": self.prompt.shape,
            "needs_call": self.prompt.needs_call,
            "shortest_call_tokens": self.prompt.shortest_call_tokens,
            "ended": self.ended,
            **{name: value if value < float("inf") else None for name, value in numbers.items()},
            "text": self.text,
        }
