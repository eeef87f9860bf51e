"""Measures greedy generation with a KV cache, one prompt at a time. A test can pass its own clock."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from kdfast._rust import Tokenizer, ToolCallStream
from kdfast.scoring import FORMATS
from kdfast.speed.engine import Engine, TransformersEngine
from kdfast.speed.sample import SpeedPrompt, SpeedSample

Clock = Callable[[], float]
"""Returns the time in seconds; any zero point will do."""
OnProgress = Callable[[int, SpeedSample], None]
"""Called with the number of prompts measured so far, and the newest sample."""

WARMUP_TOKENS = 8
"""How many tokens a warm-up generates at most."""


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """How to measure.

    Attributes:
        max_new_tokens: an answer is cut after this many tokens.
        warmup: how many generations to run before the first measured one (the first use allocates memory and picks
            kernels).
        eos_ids: token ids that end an answer; () = the model's own.
        formats: the call formats that count, see `kdfast.find_tool_calls`.
    """

    max_new_tokens: int = 128
    warmup: int = 1
    eos_ids: Sequence[int] = ()
    formats: Sequence[str] = FORMATS

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {self.warmup}")


def measure_proxy(
    model: nn.Module | Engine,
    batch: Mapping[str, Tensor] | Sequence[SpeedPrompt],
    tokenizer: Tokenizer | str | os.PathLike[str],
    options: SpeedOptions | None = None,
    *,
    clock: Clock = time.perf_counter,
    on_progress: OnProgress | None = None,
) -> list[SpeedSample]:
    """Measures how fast a model answers and how early it acts, on this machine, as a proxy for the device.

    Args:
        model: a Hugging Face causal LM (runs in evaluation mode, which is undone afterwards), or an `Engine`.
        batch: prompts; or a batch of `collate_kd_batch`, whose prompts are used. Such a batch has no tools and no
            ground truth: every well-formed call counts, and there is no `ttfa_overhead_tokens`.
        tokenizer: kdfast's tokenizer, or the path of a tokenizer.json or of a directory that holds one.
        options: limits, warm-up and end tokens.
        clock: returns seconds; read before tokenising and after each step, never during a step.
        on_progress: called after each prompt; its time is not measured.

    Returns:
        One raw sample per prompt; `aggregate_speed_metrics` computes statistics from them.

    Raises:
        ValueError: a prompt has no token, or an engine was given without `options.eos_ids`.
        FloatingPointError: the model's logits are NaN.
        SchemaError: the parameters of a prompt's tools are not a valid JSON Schema.
    """
    options = options or SpeedOptions()
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer.from_file(Path(tokenizer))
    prompts = _prompts_of(batch, tokenizer) if isinstance(batch, Mapping) else batch
    if not isinstance(model, nn.Module):
        if not options.eos_ids:
            raise ValueError("options.eos_ids must be given with an engine, got none")
        return list(_measure(model, prompts, tokenizer, options, clock, on_progress))
    if not options.eos_ids:
        options = replace(options, eos_ids=model_eos_ids(model))
    with evaluating(model):
        return list(_measure(TransformersEngine(model), prompts, tokenizer, options, clock, on_progress))


def _measure(
    engine: Engine,
    prompts: Sequence[SpeedPrompt],
    tokenizer: Tokenizer,
    options: SpeedOptions,
    clock: Clock,
    on_progress: OnProgress | None,
) -> Iterator[SpeedSample]:
    warm_up(engine, prompts, tokenizer, options)
    for number, prompt in enumerate(prompts, 1):
        sample = measure_prompt(engine, prompt, tokenizer, options, clock=clock)
        if on_progress is not None:
            on_progress(number, sample)
        yield sample


def warm_up(
    engine: Engine, prompts: Sequence[SpeedPrompt], tokenizer: Tokenizer, options: SpeedOptions
) -> None:
    """Generates the first tokens of `options.warmup` answers without measuring them, to the first prompts in turn."""
    for number in range(options.warmup if prompts else 0):
        engine.prefill(tokenizer.encode(prompts[number % len(prompts)].text))
        for _ in range(min(options.max_new_tokens, WARMUP_TOKENS)):
            engine.next()
        engine.reset()


def measure_prompt(
    engine: Engine,
    prompt: SpeedPrompt,
    tokenizer: Tokenizer,
    options: SpeedOptions,
    *,
    clock: Clock = time.perf_counter,
) -> SpeedSample:
    """Measures one answer. Only the tokenizer and the engine are timed; calls are looked for afterwards."""
    stops = frozenset(options.eos_ids)
    engine.reset()
    started = clock()
    ids = tokenizer.encode(prompt.text)
    tokenised = clock()
    engine.prefill(ids)
    prefilled = clock()
    answer, arrivals = [engine.next()], [clock()]
    while answer[-1] not in stops and len(answer) < options.max_new_tokens:
        answer.append(engine.next())
        arrivals.append(clock())
    engine.reset()
    ended = answer[-1] in stops
    text_ids = answer[:-1] if ended else answer
    tokens, name_tokens, thinking_tokens = _first_action(prompt, text_ids, tokenizer, options)
    acted = tokens is not None and math.isfinite(tokens)
    return SpeedSample(
        prompt=prompt,
        prompt_tokens=len(ids),
        ids=tuple(answer),
        text=tokenizer.decode(text_ids),
        ended=ended,
        tokenise_ms=1000 * (tokenised - started),
        prefill_ms=1000 * (prefilled - tokenised),
        first_token_ms=1000 * (arrivals[0] - prefilled),
        itl_ms=tuple(1000 * (after - before) for before, after in pairwise(arrivals)),
        ttfa_tokens=tokens,
        ttfa_name_tokens=name_tokens,
        ttfa_ms=1000 * (arrivals[int(tokens) - 1] - started) if tokens is not None and acted else tokens,
        thinking_tokens=thinking_tokens,
    )


def _first_action(
    prompt: SpeedPrompt, ids: list[int], tokenizer: Tokenizer, options: SpeedOptions
) -> tuple[float | None, float | None, int]:
    """How many tokens until the first valid call, and until its name, is complete; inf = none came, None = none is due.

    And how many tokens belong to thinking blocks.
    """
    stream = ToolCallStream(prompt.tools or None, options.formats, tokenizer, thinking=prompt.thinking)
    stream.feed_tokens(ids)
    if not prompt.needs_call:
        return None, None, stream.thinking_tokens
    places = (stream.complete_at_token, stream.name_at_token)
    tokens, name_tokens = (math.inf if place is None else float(place + 1) for place in places)
    return tokens, name_tokens, stream.thinking_tokens


def _prompts_of(batch: Mapping[str, Tensor], tokenizer: Tokenizer) -> list[SpeedPrompt]:
    """The prompts of a training batch, as text."""
    if "segment_ids" in batch:
        raise ValueError("batch must not be packed (segment_ids): a row must be one conversation")
    starts = batch["response_start"].tolist()
    needs = batch["tool_should_be_used"].tolist()
    shape = batch["input_ids"].shape[1]
    return [
        SpeedPrompt(text=tokenizer.decode(ids[:start].tolist()), needs_call=needed, shape=shape)
        for ids, start, needed in zip(batch["input_ids"], starts, needs, strict=True)
    ]


def model_eos_ids(model: nn.Module) -> tuple[int, ...]:
    """The token ids that end an answer, from a Hugging Face model's configuration; () = it names none."""
    for settings in (getattr(model, "generation_config", None), getattr(model, "config", None)):
        ids = getattr(settings, "eos_token_id", None)
        if ids is not None:
            return (ids,) if isinstance(ids, int) else tuple(ids)
    return ()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode, and back into its old mode at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
