"""Batched generation with a KV cache: greedy, or as a constraint says.

The model is any Hugging Face causal LM. It is called with `input_ids`, `attention_mask`, `position_ids`,
`past_key_values`, `use_cache` and `logits_to_keep`, and makes its own cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

OnProgress = Callable[[int, int], None]  # answers ended so far, tokens generated so far
OnAnswer = Callable[[int, list[int]], None]  # index of the prompt, the answer's ids


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are generated.

    Attributes:
        eos_ids: token ids that end an answer (end of text, end of turn).
        pad_id: token id to pad with; the attention mask hides it from the model.
        max_new_tokens: an answer is cut after this many tokens.
        batch_size: the largest number of prompts in a batch.
        batch_tokens: the largest number of tokens in a batch's cache, with padding and `max_new_tokens`.
    """

    eos_ids: Sequence[int]
    pad_id: int
    max_new_tokens: int = 128
    batch_size: int = 64
    batch_tokens: int = 16384


class Constraint(Protocol):
    """Decides what answers may be. A prompt is named by its index in the list of prompts (its place)."""

    def restrict(self, places: Sequence[int], logits: Tensor) -> Tensor:
        """Returns the logits [B, V] with -inf for the forbidden tokens; row i is the answer to prompt `places[i]`.

        The token with the largest value is taken. `Draws` adds noise.
        """
        ...

    def take(self, place: int, token: int, *, ended: bool) -> None:
        """Takes the token that was chosen for the answer to prompt `place`; `ended` says if the answer ends with it."""
        ...


def generate(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    on_progress: OnProgress | None = None,
    *,
    constraint: Constraint | None = None,
    on_answer: OnAnswer | None = None,
) -> list[list[int]]:
    """Greedy answers to many prompts. A batch does not change an answer, except where two logits are nearly equal.

    Prompts of similar length share a batch, padded on the left. An answer that has ended leaves its batch.

    Args:
        model: a causal LM; runs in evaluation mode, and goes back to its old mode at the end.
        prompts: the token ids of each prompt.
        decoding: end tokens, limits and batch sizes.
        on_progress: called after every step with (answers ended, tokens generated).
        constraint: restricts what an answer may be; None = no restriction.
        on_answer: called when an answer has ended, with the index of its prompt and its ids; the rest of its batch may
            go on. It comes before the step's `on_progress`.

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
    was_training = model.training
    model.eval()
    try:
        for batch in _batches([len(prompt) for prompt in prompts], decoding):
            for finished, emitted in _answer_batch(model, prompts, batch, decoding, answers, constraint):
                ended, tokens = ended + len(finished), tokens + emitted
                if on_answer is not None:
                    for index in finished:
                        on_answer(index, answers[index])
                if on_progress is not None:
                    on_progress(ended, tokens)
    finally:
        model.train(was_training)
    return answers


def _batches(lengths: Sequence[int], decoding: Decoding) -> Iterator[list[int]]:
    """Indices of the prompts of each batch; the longest come first, so that a lack of memory shows at once."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        row_tokens = lengths[batch[0] if batch else index] + decoding.max_new_tokens
        full = len(batch) == decoding.batch_size or (len(batch) + 1) * row_tokens > decoding.batch_tokens
        if batch and full:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def _answer_batch(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    batch: list[int],
    decoding: Decoding,
    answers: list[list[int]],
    constraint: Constraint | None,
) -> Iterator[tuple[list[int], int]]:
    """Fills `answers` for one batch; yields (indices of the answers that ended, tokens added) after each step."""
    device = next(model.parameters()).device
    width = max(len(prompts[index]) for index in batch)
    padded = [[decoding.pad_id] * (width - len(prompts[i])) + list(prompts[i]) for i in batch]
    starts = torch.tensor([width - len(prompts[index]) for index in batch], device=device)  # [B]
    input_ids = torch.tensor(padded, dtype=torch.long, device=device)  # [B, width]
    positions = torch.arange(width, device=device) - starts[:, None]  # [B, width], negative on padding
    mask = (positions >= 0).long()  # [B, width]
    position_ids, cache = positions.clamp(min=0), None
    rows = list(batch)
    stops = set(decoding.eos_ids)
    while rows:
        output = model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        best = _best(output.logits[:, -1], rows, constraint)  # [B]
        going, finished, emitted = [], [], 0
        for place, token in enumerate(best.tolist()):
            answer = answers[rows[place]]
            ended = token in stops
            if not ended:
                answer.append(token)
                emitted += 1
                ended = len(answer) == decoding.max_new_tokens
            if ended:
                finished.append(rows[place])
            else:
                going.append(place)
            if constraint is not None:
                constraint.take(rows[place], token, ended=ended)
        yield finished, emitted
        position_ids = position_ids[:, -1:] + 1  # [B, 1]
        input_ids = best[:, None]  # [B, 1]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)  # [B, width + tokens so far]
        if len(going) < len(rows):
            kept = torch.tensor(going, dtype=torch.long, device=device)
            input_ids, position_ids, mask = input_ids[kept], position_ids[kept], mask[kept]
            rows = [rows[place] for place in going]
            if rows:
                cache.batch_select_indices(kept)


def _best(logits: Tensor, places: Sequence[int], constraint: Constraint | None) -> Tensor:
    """The likeliest allowed token of each row, [B]."""
    best = logits.max(dim=-1)
    if best.values.isnan().any():  # the maximum of a row with a NaN is NaN
        raise FloatingPointError("the model's logits are NaN")
    return best.indices if constraint is None else constraint.restrict(places, logits).argmax(dim=-1)
