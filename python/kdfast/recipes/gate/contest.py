"""Two models on the same prompts, one right after the other, in random order."""

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
    TransformersEngine,
    measure_prompt,
    warm_up,
)

PAIR_TOKENS = 16
"""Tokens that each model generates in a pair: on one prompt both always do the same work."""

Clock = Callable[[], float]
OnPair = Callable[[int], None]
"""Called with the pairs that are done."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models.

    Attributes:
        name: what the user named, for messages.
        engine: what generates.
        tokenizer: its own.
        prompts: what it reads; the other side's say the same.
        options: limits, warm-up and end tokens.
    """

    name: str
    engine: Engine
    tokenizer: Tokenizer
    prompts: Sequence[SpeedPrompt]
    options: SpeedOptions

    @classmethod
    def of(cls, loaded: LoadedModel, wrap: Callable[[Engine], Engine] | None = None) -> Side:
        """A model that was loaded.

        Args:
            loaded: it.
            wrap: puts another engine around its own, such as one that is slower by a known share.
        """
        engine: Engine = TransformersEngine(loaded.model)
        return cls(
            name=str(loaded.named),
            engine=engine if wrap is None else wrap(engine),
            tokenizer=loaded.tokenizer,
            prompts=loaded.prompts,
            options=loaded.options,
        )

    def run(
        self, prompt: SpeedPrompt, options: SpeedOptions, clock: Clock = time.perf_counter
    ) -> SpeedSample:
        """One generation.

        Raises:
            DataError: its logits are NaN.
        """
        with self._finite():
            return measure_prompt(self.engine, prompt, self.tokenizer, options, clock=clock)

    def answers(self, on_answer: Callable[[int], None]) -> list[SpeedSample]:
        """The whole answer to every prompt, in the prompts' order, of this model alone.

        Args:
            on_answer: called with the answers that are done.

        Raises:
            DataError: its logits are NaN.
        """
        samples = []
        for prompt in self.prompts:
            samples.append(self.run(prompt, self.options))
            on_answer(len(samples))
        return samples

    def warm_up(self) -> None:
        """Generates off the clock (first use allocates memory and picks kernels).

        Raises:
            DataError: its logits are NaN.
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
    """Runs a candidate and a blessed model by turns, on one machine, in one process.

    Of every two generations of a pair one starts at random; of every two pairs one starts with the candidate. Prompts
    come in a new random order each time all were taken.

    Args:
        candidate: the model to judge.
        blessed: the model to judge it by.
        seed: of both orders.
        clock: seconds.

    Raises:
        ValueError: answers of less than two tokens.
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
        """Both sides, see `Side.warm_up`."""
        self.candidate.warm_up()
        self.blessed.warm_up()

    def answers(self, on_pair: OnPair) -> tuple[list[SpeedSample], list[SpeedSample]]:
        """The whole answer of each side to every prompt, in the prompts' order: what reports are made of.

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

        In each, both models read the same prompt and generate `PAIR_TOKENS` tokens, whether their answer would have
        ended before or not (a token takes as long whatever it says).

        Args:
            count: how many.
            on_pair: called after each.

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
    """True and False in random order, but of the 1st and 2nd, of the 3rd and 4th, ... one each."""
    while True:
        first = bool(rng.integers(2))
        yield first
        yield not first


def _shuffled(rng: np.random.Generator, count: int) -> Iterator[int]:
    while True:
        yield from rng.permutation(count).tolist()
