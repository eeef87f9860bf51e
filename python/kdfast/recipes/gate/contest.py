"""Runs two models on the same prompts, one right after the other, in random order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kdfast._rust import Tokenizer
from kdfast.errors import DataError
from kdfast.gates import Pairs
from kdfast.recipes.loaded_model import LoadedModel
from kdfast.speed import (
    Engine,
    SpeedOptions,
    SpeedPrompt,
    SpeedSample,
    measure_prompt,
    warm_up,
)

PAIR_TOKENS = 16
"""Tokens that each model generates in a pair, so that both do the same work on a prompt."""

Clock = Callable[[], float]
OnPair = Callable[[int], None]
"""Called after each pair with the number of pairs done."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models.

    Attributes:
        name: what the user named, for messages.
        engine: generates the tokens.
        tokenizer: the model's own tokenizer.
        prompts: what the model reads; the other side's prompts have the same text.
        options: limits, warm-up and end tokens.
    """

    name: str
    engine: Engine
    tokenizer: Tokenizer
    prompts: Sequence[SpeedPrompt]
    options: SpeedOptions

    @classmethod
    def of(cls, loaded: LoadedModel, wrap: Callable[[Engine], Engine] | None = None) -> Side:
        """The side of a loaded model.

        Args:
            loaded: the model.
            wrap: puts another engine around the model's own, such as one that is slower by a known share.
        """
        return cls(
            name=str(loaded.named),
            engine=loaded.engine if wrap is None else wrap(loaded.engine),
            tokenizer=loaded.tokenizer,
            prompts=loaded.prompts,
            options=loaded.options,
        )

    def run(
        self, prompt: SpeedPrompt, options: SpeedOptions, clock: Clock = time.perf_counter
    ) -> SpeedSample:
        """One generation.

        Raises:
            DataError: the model's logits are NaN.
        """
        with self._finite():
            return measure_prompt(self.engine, prompt, self.tokenizer, options, clock=clock)

    def answers(self, on_answer: Callable[[int], None]) -> list[SpeedSample]:
        """This model's whole answer to every prompt, in the prompts' order.

        Args:
            on_answer: called after each answer with the number of answers done.

        Raises:
            DataError: the model's logits are NaN.
        """
        samples = []
        for prompt in self.prompts:
            samples.append(self.run(prompt, self.options))
            on_answer(len(samples))
        return samples

    def warm_up(self) -> None:
        """Generates without measuring: the first use allocates memory and picks kernels.

        Raises:
            DataError: the model's logits are NaN.
        """
        with self._finite():
            warm_up(self.engine, self.prompts, self.tokenizer, self.options)

    @contextmanager
    def _finite(self) -> Iterator[None]:
        try:
            yield
        except FloatingPointError as error:
            raise DataError(f"cannot be measured: {error}", self.name) from error


class Contest:
    """Runs a candidate and a blessed model in turn, on one machine, in one process.

    In each pair one of the two runs first. Of every two pairs, one (drawn at random) starts with the candidate, the
    other with the blessed model. When all prompts have been used, they come again in a new random order.

    Args:
        candidate: the model to judge.
        blessed: the model to judge it by.
        seed: decides both orders.
        clock: gives the time in seconds.

    Raises:
        ValueError: an answer may have only one token.
    """

    def __init__(
        self, candidate: Side, blessed: Side, *, seed: int = 0, clock: Clock = time.perf_counter
    ) -> None:
        fewest = min(candidate.options.max_new_tokens, blessed.options.max_new_tokens)
        if fewest < 2:
            raise ValueError(
                f"max_new_tokens: a token's time takes a second token; give at least 2, got {fewest}"
            )
        self.candidate, self.blessed, self.clock = candidate, blessed, clock
        rng = np.random.default_rng(seed)
        self._first = _of_two(rng)
        self._prompts = _shuffled(rng, len(candidate.prompts))

    def warm_up(self) -> None:
        """Warms up both sides, see `Side.warm_up`."""
        self.candidate.warm_up()
        self.blessed.warm_up()

    def answers(self, on_pair: OnPair) -> tuple[list[SpeedSample], list[SpeedSample]]:
        """Each side's whole answer to every prompt, in the prompts' order, for the reports.

        Raises:
            DataError: a model's logits are NaN.
        """
        samples: tuple[list[SpeedSample], list[SpeedSample]] = ([], [])
        for number in range(len(self.candidate.prompts)):
            pair = self._pair(partial(self._whole, number))
            for gathered, sample in zip(samples, pair, strict=True):
                gathered.append(sample)
            on_pair(number + 1)
        return samples

    def pairs(self, count: int, on_pair: OnPair) -> dict[str, Pairs]:
        """Fresh pairs for a `PairedTrial`.

        In each pair both models read the same prompt and generate `PAIR_TOKENS` tokens, even if their answer ends
        earlier: the time of a token does not depend on its text.

        Args:
            count: how many pairs.
            on_pair: called after each pair with the number of pairs done.

        Returns:
            `ttft`: milliseconds to the first token; `tps`: milliseconds a token after it.

        Raises:
            DataError: a model's logits are NaN.
        """
        rows: list[tuple[int, SpeedSample, SpeedSample]] = []
        for done in range(count):
            number = next(self._prompts)
            rows.append((number, *self._pair(partial(self._short, number))))
            on_pair(done + 1)
        prompt = np.array([number for number, _, _ in rows])
        times = {
            "ttft": [(candidate.ttft_ms, blessed.ttft_ms) for _, candidate, blessed in rows],
            "tps": [(_token_ms(candidate), _token_ms(blessed)) for _, candidate, blessed in rows],
        }
        return {name: Pairs(prompt, *np.array(both, dtype=np.float64).T) for name, both in times.items()}

    def _whole(self, number: int, side: Side) -> SpeedSample:
        return side.run(side.prompts[number], side.options, self.clock)

    def _short(self, number: int, side: Side) -> SpeedSample:
        tokens = min(PAIR_TOKENS, side.options.max_new_tokens)
        options = replace(side.options, max_new_tokens=tokens, eos_ids=())
        return side.run(replace(side.prompts[number], needs_call=False), options, self.clock)

    def _pair(self, run: Callable[[Side], SpeedSample]) -> tuple[SpeedSample, SpeedSample]:
        if next(self._first):
            candidate = run(self.candidate)
            return candidate, run(self.blessed)
        blessed = run(self.blessed)
        return run(self.candidate), blessed


def _token_ms(sample: SpeedSample) -> float:
    return sum(sample.itl_ms) / len(sample.itl_ms)


def _of_two(rng: np.random.Generator) -> Iterator[bool]:
    """True and False in random order; each two in a row (1st and 2nd, 3rd and 4th, ...) hold one of each."""
    while True:
        first = bool(rng.integers(2))
        yield first
        yield not first


def _shuffled(rng: np.random.Generator, count: int) -> Iterator[int]:
    while True:
        yield from rng.permutation(count).tolist()
