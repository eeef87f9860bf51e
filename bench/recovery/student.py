"""The student: tokenizer, rows as ids, a small Llama, and its training in float."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from kdfast.config.quant import QuantConfig
from kdfast.losses import FORWARD_KL, DenseHead, RowTargets, linear_kd
from kdfast.qat import apply_qat_to_model
from kdfast.quantized import effective_weight
from recovery.world import Record

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
PAD, END = 0, 2


@dataclass(frozen=True)
class Size:
    """The student and its data. The width is a multiple of 256, so that llama.cpp's Q6_K fits it."""

    hidden: int = 256
    layers: int = 2
    intermediate: int = 256
    heads: int = 4
    train_rows: int = 20000
    held_out_rows: int = 1000
    tune_rows: int = 400
    float_steps: int = 2000
    float_batch: int = 16
    float_rate: float = 2e-3


@dataclass(frozen=True)
class Row:
    """A record as ids.

    Attributes:
        ids: prompt and answer, with the end of the turn.
        start: where the answer begins.
        name: offsets from `start` of the tokens of the called name.
        arguments: the same for what stands between the braces of the arguments.
        record: the record.
    """

    ids: list[int]
    start: int
    name: list[int]
    arguments: list[int]
    record: Record


def prompt_text(record: Record) -> str:
    """The request up to where the answer begins. The tools are not in it: the student knows its home by heart."""
    return f"<|im_start|>user\n{record.prompt}<|im_end|>\n<|im_start|>assistant\n"


def train_tokenizer(records: Sequence[Record]) -> Tokenizer:
    """One token for each word, digit and mark of the records: the home is closed, so there are few of them."""
    pieces = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    found: set[str] = set()
    for record in records:
        for text in (f"user\n{record.prompt}", f"assistant\n{record.answer}"):
            for mark in SPECIAL:
                text = text.replace(mark, "")  # noqa: PLW2901 - the text without all marks
            found |= {piece for piece, _ in pieces.pre_tokenize_str(text)}
    words = [*SPECIAL, *sorted(found)]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, SPECIAL[PAD]))
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def encode(tokenizer: Tokenizer, record: Record) -> Row:
    """A record as ids, with the places of the call's parts."""
    prompt = tokenizer.encode(prompt_text(record)).ids
    answer = tokenizer.encode(record.answer + "<|im_end|>")
    name, arguments = [], []
    if record.name:
        name_span = _span(record.answer, '"name": "', f"{record.name}")
        begin = record.answer.index('"arguments": {') + len('"arguments": {')
        arguments_span = begin, record.answer.rindex("}}")
        for place, (left, right) in enumerate(answer.offsets):
            if left < name_span[1] and right > name_span[0]:
                name.append(place)
            if left < arguments_span[1] and right > arguments_span[0]:
                arguments.append(place)
    return Row(prompt + answer.ids, len(prompt), name, arguments, record)


def _span(text: str, before: str, part: str) -> tuple[int, int]:
    begin = text.index(before) + len(before)
    return begin, begin + len(part)


def make_student(size: Size, vocab: int, seed: int = 0) -> Any:
    """A Llama with random weights and tied embeddings."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab + -vocab % 32,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            intermediate_size=size.intermediate,
            num_attention_heads=size.heads,
            num_key_value_heads=max(size.heads // 2, 1),
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=END,
            pad_token_id=PAD,
        )
    )


def padded(rows: Sequence[Row]) -> Tensor:
    """The rows' ids [B,T], padded on the right, where causal attention never looks."""
    width = max(len(row.ids) for row in rows)
    return torch.tensor([row.ids + [PAD] * (width - len(row.ids)) for row in rows])


def answers(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """(row, position) of each prediction of an answer's token, and the token: three times [N]."""
    places = [
        (number, at - 1, row.ids[at])
        for number, row in enumerate(rows)
        for at in range(row.start, len(row.ids))
    ]
    numbers, positions, tokens = torch.tensor(places).T
    return numbers, positions, tokens


def batches(rows: Sequence[Row], size: int, steps: int, seed: int) -> Iterator[list[Row]]:
    """Batches of rows of similar length; each row once an epoch, in an order that depends on the seed only."""
    rng, queue = random.Random(seed), list[Row]()
    ready: list[list[Row]] = []
    for _ in range(steps):
        if not ready:
            while len(queue) < 8 * size:
                queue += rng.sample(rows, len(rows))
            some, queue = sorted(queue[: 8 * size], key=lambda row: len(row.ids)), queue[8 * size :]
            ready = [some[at : at + size] for at in range(0, len(some), size)]
            rng.shuffle(ready)
        yield ready.pop()


@dataclass(frozen=True)
class Phase:
    """Steps of training: with AdamW, gradients cut at norm 1, a short warm-up and a cosine to `last_fraction`.

    Attributes:
        steps: optimiser steps.
        rate: the peak of the learning rate.
        batch: rows a step.
        seed: of the order of the rows.
        cross_entropy: weight of the cross-entropy with the true answers, mean over tokens.
        divergence: weight of KL(teacher || student), mean over the same tokens.
        format: fake quantisation; None = float.
    """

    steps: int
    rate: float
    batch: int = 16
    seed: int = 0
    cross_entropy: float = 1.0
    divergence: float = 0.0
    format: str | None = None
    warmup: int = 5
    last_fraction: float = 0.0


def quant_config(format_name: str) -> QuantConfig:
    """The section `quant` with its defaults: with q4_0 the embedding is q8_0."""
    return QuantConfig(enabled=True, format=format_name)  # type: ignore[arg-type]


def loss_of(model: Any, rows: Sequence[Row], phase: Phase, teacher: Any = None) -> Tensor:
    """The phase's loss of some rows, a scalar."""
    ids = padded(rows)
    numbers, positions, tokens = answers(rows)
    share = 1 / len(tokens)
    targets: dict[str, Any] = {}
    if phase.cross_entropy:
        targets["labels"] = tokens[:, None]
        targets["label_coefficients"] = torch.full((len(tokens), 1), phase.cross_entropy * share)
    if phase.divergence:
        with torch.no_grad():
            hidden = teacher.model(input_ids=ids, use_cache=False).last_hidden_state[numbers, positions]
        targets["teacher"] = DenseHead(hidden, teacher.lm_head.weight.detach())
        targets["divergence"] = FORWARD_KL
        targets["kl_coefficients"] = torch.full((len(tokens),), phase.divergence * share)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[numbers, positions]
    total: Tensor = linear_kd(hidden, effective_weight(model.lm_head), RowTargets(**targets)).total
    return total


def train(
    model: Any, rows: Sequence[Row], phase: Phase, teacher: Any = None, log_every: int = 0
) -> list[float]:
    """Trains in place, with fake quantisation where the phase says so (it stays on); gives the loss of each step."""
    if phase.format is not None:
        apply_qat_to_model(model, quant_config(phase.format))
    matrices = [one for one in model.parameters() if one.dim() > 1]
    vectors = [one for one in model.parameters() if one.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=phase.rate, betas=(0.9, 0.95))
    losses = []
    model.train()
    for step, some in enumerate(batches(rows, phase.batch, phase.steps, phase.seed)):
        done = max(step - phase.warmup, 0) / max(phase.steps - phase.warmup, 1)
        cosine = phase.last_fraction + (1 - phase.last_fraction) * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = phase.rate * cosine * min((step + 1) / (phase.warmup + 1), 1)
        loss = loss_of(model, some, phase, teacher)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if log_every and (step + 1) % log_every == 0:
            print(f"  step {step + 1}: {sum(losses[-log_every:]) / log_every:.4f}", flush=True)
    return losses
