"""A prompt to measure on, and what was measured on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.scoring import FORMATS, Score, score_answer


@dataclass(frozen=True, kw_only=True)
class SpeedPrompt:
    """One prompt.

    Attributes:
        text: what the model reads, rendered; tokenising it is part of the measurement.
        tools: the tool definitions, as JSON text ("" = none: then every well-formed call is valid).
        needs_call: whether a tool call is due; only then there is a time to the first action.
        shortest_call_tokens: length of the shortest right call; None = there is no ground truth.
        shape: the padded length that training would put the row in; reports are sliced by it.
        line: of the record.
        reference: the right answer; what answers are scored by where nothing is `accepted`.
        accepted: BFCL's ground truth, one `{function: {argument: [values]}}` a call; None = the reference's calls.
    """

    text: str
    tools: str = ""
    needs_call: bool = False
    shortest_call_tokens: int | None = None
    shape: int | None = None
    line: int | None = None
    reference: str = ""
    accepted: Sequence[Mapping[str, Any]] | None = None


def prompts_fingerprint(prompts: Iterable[SpeedPrompt]) -> str:
    """SHA-256 (hex) over the texts, tools and needs of prompts, in their order."""
    total = hashlib.sha256()
    for prompt in prompts:
        total.update(json.dumps([prompt.text, prompt.tools, prompt.needs_call]).encode() + b"\n")
    return total.hexdigest()


def truth_fingerprint(prompts: Iterable[SpeedPrompt]) -> str:
    """SHA-256 (hex) over what the answers to prompts are scored by, in their order.

    That is whether a call is due, and where one is, the accepted values, else the right answer.

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
    """What was measured on one prompt, raw.

    Attributes:
        prompt: it.
        prompt_tokens: its length.
        ids: every token that was generated, in order, the one that ended the answer included.
        text: the answer, without the token that ended it.
        ended: whether it ended by itself, not by `max_new_tokens`.
        tokenise_ms: text to token ids.
        prefill_ms: the prompt into the cache.
        first_token_ms: from there to the first token.
        itl_ms: inter-token latencies, one for each further token.
        ttfa_tokens: tokens up to and with the one that completed the first valid call; inf = none came; None = no
            call is due.
        ttfa_name_tokens: tokens up to and with the one that closed that call's function name; else the same.
        ttfa_ms: time from the start to that call's last token; else the same.
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

    @property
    def ttft_ms(self) -> float:
        """Time to the first token, from the prompt's text."""
        return self.tokenise_ms + self.prefill_ms + self.first_token_ms

    @property
    def tpot_ms(self) -> float | None:
        """Mean time of a token after the first; None where there is none."""
        return sum(self.itl_ms) / len(self.itl_ms) if self.itl_ms else None

    @property
    def tps(self) -> float | None:
        """Tokens per second after the first; None where there is none."""
        return 1000 / self.tpot_ms if self.tpot_ms else None

    @property
    def ttfa_overhead_tokens(self) -> float | None:
        """`ttfa_tokens` beyond the shortest right call; None where no call is due, or no ground truth is known."""
        shortest = self.prompt.shortest_call_tokens
        return None if self.ttfa_tokens is None or shortest is None else self.ttfa_tokens - shortest

    def score(self, formats: Sequence[str] = FORMATS) -> Score:
        """Whether the answer calls tools rightly.

        Args:
            formats: call formats that count, see `kdfast.find_tool_calls`.

        Raises:
            SchemaError: the parameters of the prompt's tools are no valid JSON Schema.
        """
        return score_answer(
            self.text,
            json.loads(self.prompt.tools or "[]"),
            accepted=self.prompt.accepted,
            reference_text=self.prompt.reference,
            should_call=self.prompt.needs_call,
            formats=formats,
        )

    def values(self) -> dict[str, float | Sequence[float]]:
        """Every metric that this prompt has, by its name in a report."""
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
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """The prompt's own line in a report. `itl_ms` is left to the report's metric, which holds all in order."""
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
