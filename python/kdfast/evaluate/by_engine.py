"""Greedy answers of an engine, one prompt at a time: the engine of an export has no batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kdfast.evaluate.generate import Decoding, OnAnswer, OnProgress


class TokenEngine(Protocol):
    """The part of `kdfast.speed.Engine` that this module uses."""

    def reset(self) -> None:
        """Forgets the prompt and its answer."""

    def prefill(self, ids: Sequence[int]) -> None:
        """Reads a whole prompt into the cache."""

    def next(self) -> int:
        """The next token id."""
        ...


def generate_by_engine(
    engine: TokenEngine,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    on_progress: OnProgress | None = None,
    *,
    on_answer: OnAnswer | None = None,
) -> list[list[int]]:
    """Greedy answers to many prompts, as `generate` gives them. The longest prompts come first, as there.

    Args:
        engine: takes the likeliest token.
        prompts: the token ids of each prompt.
        decoding: end tokens and the limit of an answer; its sizes of batches are not used.
        on_progress: called after every token with (answers ended, tokens generated).
        on_answer: called when an answer has ended, with the index of its prompt and its ids; before the step's
            `on_progress`.

    Returns:
        The new token ids of each answer, in the order of `prompts`, without the token that ended it. An answer of
        `max_new_tokens` ids was cut.

    Raises:
        ValueError: a prompt is empty, or `max_new_tokens` is not positive.
        FloatingPointError: the model's logits are NaN.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("prompts must not be empty")
    if decoding.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be positive: {decoding.max_new_tokens}")
    answers: list[list[int]] = [[] for _ in prompts]
    ended = tokens = 0
    stops = frozenset(decoding.eos_ids)
    for index in sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index)):
        answer = answers[index]
        engine.prefill(list(prompts[index]))
        going = True
        while going:
            token = engine.next()
            if token not in stops:
                answer.append(token)
                tokens += 1
            going = token not in stops and len(answer) < decoding.max_new_tokens
            if not going:
                ended += 1
                if on_answer is not None:
                    on_answer(index, answer)
            if on_progress is not None:
                on_progress(ended, tokens)
        engine.reset()
    return answers
