"""Batched greedy generation with a KV cache.

The model is any Hugging Face causal LM: it is called with `input_ids`, `attention_mask`, `position_ids`,
`past_key_values`, `use_cache` and `logits_to_keep`, and makes its own cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

OnProgress = Callable[[int, int], None]  # prompts ended, tokens generated; both so far


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are generated.

    Attributes:
        eos_ids: token ids that end an answer (end of text, end of turn).
        pad_id: token id to pad with; never seen by the model.
        max_new_tokens: an answer is cut after so many tokens.
        batch_size: most prompts in a batch.
        batch_tokens: most tokens in a batch's cache, padding and `max_new_tokens` included.
    """

    eos_ids: Sequence[int]
    pad_id: int
    max_new_tokens: int = 128
    batch_size: int = 16
    batch_tokens: int = 16384


class Constraint(Protocol):
    """What answers may be; it knows a prompt by its place among the prompts."""

    def restrict(self, places: Sequence[int], logits: Tensor) -> Tensor:
        """The logits [B, V] of the prompts at these places, with -inf where an answer may not go on."""
        ...

    def take(self, place: int, token: int, *, ended: bool) -> None:
        """A token was chosen for the answer to the prompt at this place; with it the answer has ended, or goes on."""
        ...


def generate(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    on_progress: OnProgress | None = None,
    *,
    constraint: Constraint | None = None,
) -> list[list[int]]:
    """Greedy answers to many prompts, as each would get alone (but for ties in the last bits of the logits).

    Prompts of similar length share a batch, padded on the left; a prompt that has ended leaves its batch.

    Args:
        model: a causal LM; runs in evaluation mode, which is undone afterwards.
        prompts: token ids of each prompt.
        decoding: stop tokens, limits and batch sizes.
        on_progress: called after every step with (prompts ended, tokens generated).
        constraint: what answers may be; None = free.

    Returns:
        The new token ids per prompt, in the order of `prompts`, without the token that ended them; an answer
        of `max_new_tokens` ids was cut.

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
                ended, tokens = ended + finished, tokens + emitted
                if on_progress is not None:
                    on_progress(ended, tokens)
    finally:
        model.train(was_training)
    return answers


def _batches(lengths: Sequence[int], decoding: Decoding) -> Iterator[list[int]]:
    """Indices of prompts that run together; the longest first, so that a lack of memory shows at once."""
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
) -> Iterator[tuple[int, int]]:
    """Fills `answers` for one batch of prompts; yields (prompts that ended, tokens kept) after each step."""
    device = next(model.parameters()).device
    width = max(len(prompts[index]) for index in batch)
    padded = [[decoding.pad_id] * (width - len(prompts[i])) + list(prompts[i]) for i in batch]
    starts = torch.tensor([width - len(prompts[index]) for index in batch], device=device)
    input_ids = torch.tensor(padded, dtype=torch.long, device=device)  # [B, width]
    positions = torch.arange(width, device=device) - starts[:, None]  # [B, width], negative on padding
    mask = (positions >= 0).long()
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
        best = _best(output.logits[:, -1], rows, constraint)
        going, emitted = [], 0
        for place, token in enumerate(best.tolist()):
            answer = answers[rows[place]]
            ended = token in stops
            if not ended:
                answer.append(token)
                emitted += 1
                ended = len(answer) == decoding.max_new_tokens
            if not ended:
                going.append(place)
            if constraint is not None:
                constraint.take(rows[place], token, ended=ended)
        yield len(rows) - len(going), emitted
        position_ids = position_ids[:, -1:] + 1
        input_ids = best[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        if len(going) < len(rows):
            kept = torch.tensor(going, dtype=torch.long, device=device)
            input_ids, position_ids, mask = input_ids[kept], position_ids[kept], mask[kept]
            rows = [rows[place] for place in going]
            if rows:
                cache.batch_select_indices(kept)


def _best(logits: Tensor, places: Sequence[int], constraint: Constraint | None) -> Tensor:
    """[B] the likeliest token of each row that it may take."""
    best = logits.max(dim=-1)
    if best.values.isnan().any():  # the maximum of a row with a NaN is NaN
        raise FloatingPointError("the model's logits are NaN")
    return best.indices if constraint is None else constraint.restrict(places, logits).argmax(dim=-1)
