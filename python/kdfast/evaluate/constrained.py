"""Constrained generation with llguidance: every complete tool call is valid by construction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kdfast.errors import ConfigError, SchemaError
from kdfast.evaluate.grammar import FRAMES, answer_grammar
from kdfast.evaluate.lenient_grammar import LenientGrammar, Tool, one_line
from kdfast.evaluate.prompts import EvalPrompt, place_of, remarks

if TYPE_CHECKING:
    from llguidance import LLMatcher


class SchemaConstraint:
    """Lets answers contain only prose and valid calls of the prompt's tools (see `answer_grammar`).

    The answer to a prompt without tools is not restricted. What llguidance cannot make a grammar of, such as a pattern
    that looks ahead, is left out for its tool.

    Args:
        tokenizer: the text of tokenizer.json.
        eos_ids: token ids that end an answer.
        prompts: the prompts, in the order in which `generate` gets them.
        tool_call_format: how calls are written, a key of `kdfast.evaluate.grammar.FRAMES`.

    Attributes:
        warnings: the parts of schemas that a grammar leaves out; each once, with the line of its first prompt and the
            number of prompts that it concerns.

    Raises:
        ConfigError: llguidance is not installed.
        SchemaError: a prompt's tools cannot be made a grammar; the message names its line.
    """

    def __init__(
        self,
        tokenizer: str,
        eos_ids: Sequence[int],
        prompts: Sequence[EvalPrompt],
        tool_call_format: str = "hermes",
    ) -> None:
        require_llguidance()
        from llguidance import LLTokenizer

        self._tokenizer = LLTokenizer(tokenizer, eos_token=list(eos_ids))
        self._prompts = prompts
        self._format, frame = tool_call_format, FRAMES[tool_call_format]
        self._special = all(self._is_special(mark) for mark in (frame.opening, frame.closing) if mark)
        self._running: dict[int, LLMatcher] = {}
        self._lenient = LenientGrammar(self._check)
        # Check all grammars now, so that an error does not come after an hour of answers.
        self.warnings: list[str] = remarks(prompts, self._left_out)

    def restrict(self, places: Sequence[int], logits: Tensor) -> Tensor:
        """Sets the logits of forbidden tokens to -inf.

        Args:
            places: [B] for each row the index of its prompt.
            logits: [B, V] the logits of the next token.

        Raises:
            SchemaError: a grammar has become too complex.
        """
        allowed = np.ones(logits.shape, dtype=np.bool_)
        for row, place in enumerate(places):
            matcher = self._matcher(place)
            if matcher is None:
                continue
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            self._raise_error(matcher, place)
            # A model may have more logits than its tokenizer has tokens: the rest is forbidden.
            known = np.unpackbits(bits, bitorder="little")[: logits.shape[1]]  # [V or less]
            allowed[row] = False
            allowed[row, : len(known)] = known
        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), -torch.inf)

    def take(self, place: int, token: int, *, ended: bool) -> None:
        """Takes the token that was chosen for the answer to the prompt at this index."""
        if ended:
            self._running.pop(place, None)
        elif place in self._running:
            self._running[place].consume_token(token)
            self._raise_error(self._running[place], place)

    def _check(self, tools: Sequence[Tool]) -> tuple[bool, list[str]]:
        """Whether these tools fail as a grammar, and the error or the warnings."""
        from llguidance import LLMatcher

        return LLMatcher.validate_grammar_with_warnings(self._written(tools), self._tokenizer)

    def _left_out(self, prompt: EvalPrompt) -> list[str]:
        if not _has_tools(prompt):
            return []
        try:
            return self._lenient.held(prompt.tools).left_out
        except SchemaError as error:
            raise SchemaError(
                f"{place_of(prompt)}: the tools cannot be made a grammar, evaluate without --constrained or simplify "
                f"their parameters: {error}"
            ) from error

    def _matcher(self, place: int) -> LLMatcher | None:
        """The grammar's state after the answer so far; None = the prompt has no grammar."""
        from llguidance import LLMatcher

        if place not in self._running:
            grammar = self._grammar(self._prompts[place])
            if grammar is None:
                return None
            self._running[place] = LLMatcher(self._tokenizer, grammar, log_level=0)
        return self._running[place]

    def _grammar(self, prompt: EvalPrompt) -> str | None:
        return self._written(self._lenient.held(prompt.tools).tools) if _has_tools(prompt) else None

    def _written(self, tools: Sequence[Tool]) -> str:
        return answer_grammar(tools, special=self._special, tool_call_format=self._format)

    def _is_special(self, text: str) -> bool:
        ids = self._tokenizer.tokenize_str(text, parse_special=True)
        return len(ids) == 1 and self._tokenizer.is_special_token(ids[0])

    def _raise_error(self, matcher: LLMatcher, place: int) -> None:
        if matcher.is_error():
            raise SchemaError(
                f"{place_of(self._prompts[place])}: the grammar of the tools is too complex, evaluate without "
                f"--constrained or simplify their parameters: {one_line(matcher.get_error())}"
            )


def require_llguidance() -> None:
    """Checks that llguidance is installed.

    Raises:
        ConfigError: it is not; the message has the command that installs it.
    """
    try:
        import llguidance  # noqa: F401 - only to see if it is there
    except ImportError as error:
        raise ConfigError(
            "--constrained: needs llguidance, which is not installed; run `pip install 'kdfast[constrained]'`"
        ) from error


def _has_tools(prompt: EvalPrompt) -> bool:
    return bool(json.loads(prompt.tools or "[]"))
