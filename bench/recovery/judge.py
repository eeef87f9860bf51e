"""What an arm is judged by: KL from the float student and NLL of the truth by row, exact match by generation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.evaluate import Decoding, generate
from kdfast.scoring import score_answer
from recovery.student import END, PAD, Row, answers, padded

PARTS = ("name", "arguments", "answer")
"""Tokens of the called name, tokens between the braces of the arguments, all tokens of the answer."""

Sums = dict[str, Tensor]
"""`kl_name`, `nll_name`, `count_name`, ...: [R] fp64, sums over the tokens of each row."""


@dataclass(frozen=True)
class Batch:
    """Some rows, with what the float student says of them.

    Attributes:
        places: the rows' numbers in their split.
        rows: the rows.
        logp: [N,V] the float student's log-probabilities at the answers' tokens.
    """

    places: list[int]
    rows: list[Row]
    logp: Tensor


@torch.no_grad()
def _logp(model: Any, rows: Sequence[Row]) -> Tensor:
    numbers, positions, _ = answers(rows)
    hidden = model.model(input_ids=padded(rows), use_cache=False).last_hidden_state[numbers, positions]
    logp: Tensor = model.lm_head(hidden).float().log_softmax(1)
    return logp


def reference(student: Any, rows: Sequence[Row], size: int = 50) -> list[Batch]:
    """The rows in batches of similar length, with the float student's distributions."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    chunks = [order[at : at + size] for at in range(0, len(order), size)]
    some = [[rows[place] for place in chunk] for chunk in chunks]
    return [Batch(places, each, _logp(student, each)) for places, each in zip(chunks, some, strict=True)]


def row_sums(model: Any, batches: Sequence[Batch]) -> Sums:
    """KL(float student || model) and NLL of the truth, summed over the tokens of each part of each row."""
    model.eval()
    count = sum(len(batch.rows) for batch in batches)
    sums = {
        f"{what}_{part}": torch.zeros(count, dtype=torch.float64)
        for what in ("kl", "nll", "count")
        for part in PARTS
    }
    for batch in batches:
        logq, (_, _, tokens) = _logp(model, batch.rows), answers(batch.rows)
        gap = batch.logp - logq
        # No summand is negative, see kdfast.qat.stability: a KL of 1e-6 survives fp32.
        kl = (batch.logp.exp() * (gap + torch.expm1(-gap))).sum(1, dtype=torch.float64)
        nll = -logq.gather(1, tokens[:, None])[:, 0].double()
        begin = 0
        for place, row in zip(batch.places, batch.rows, strict=True):
            end = begin + len(row.ids) - row.start
            parts = {"name": row.name, "arguments": row.arguments, "answer": list(range(end - begin))}
            for part, offsets in parts.items():
                at = torch.tensor([begin + offset for offset in offsets], dtype=torch.int64)
                sums[f"kl_{part}"][place] = kl[at].sum()
                sums[f"nll_{part}"][place] = nll[at].sum()
                sums[f"count_{part}"][place] = len(offsets)
            begin = end
    return sums


def mean(sums: Sums, what: str, part: str) -> float:
    """Mean over tokens, in nats."""
    return float(sums[f"{what}_{part}"].sum() / sums[f"count_{part}"].sum())


def average(many: Sequence[Sums]) -> Sums:
    """Each row's mean over seeds."""
    return {name: torch.stack([one[name] for one in many]).mean(0) for name in many[0]}


def paired(arm: Sums, base: Sums, what: str, part: str, draws: int = 2000) -> dict[str, float]:
    """The difference of the means over tokens, with its 95 % interval by bootstrap over rows.

    Example:
        >>> one = {"nll_name": torch.tensor([1.0, 3.0]), "count_name": torch.tensor([1.0, 1.0])}
        >>> paired(one, one, "nll", "name")
        {'difference': 0.0, 'low': 0.0, 'high': 0.0}
    """
    gap, count = (arm[f"{what}_{part}"] - base[f"{what}_{part}"]).double(), arm[f"count_{part}"].double()
    draw = torch.Generator().manual_seed(0)
    places = torch.randint(len(gap), (draws, len(gap)), generator=draw)
    found = gap[places].sum(1) / count[places].sum(1)
    low, high = torch.quantile(found, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"difference": float(gap.sum() / count.sum()), "low": low, "high": high}


def exact_matches(model: Any, tokenizer: Tokenizer, rows: Sequence[Row]) -> list[bool]:
    """Whether each greedy answer is right: the due call, name and arguments, or no call where none is due."""
    decoding = Decoding(eos_ids=[END], pad_id=PAD, max_new_tokens=64, batch_size=64)
    found = generate(model, [row.ids[: row.start] for row in rows], decoding)
    right = []
    for row, ids in zip(rows, found, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=False)
        due = bool(row.record.name)
        score = score_answer(
            text, [], accepted=None, reference_text=row.record.answer, should_call=due, finished=len(ids) < 64
        )
        right.append(score.exact_match if due else not score.false_call)
    return right


def mcnemar(arm: Sequence[bool], base: Sequence[bool]) -> dict[str, float]:
    """The exact two-sided test of McNemar, over the same prompts.

    Example:
        >>> mcnemar([True] * 6 + [False], [False] * 6 + [False])
        {'gained': 6, 'lost': 0, 'p': 0.03125}
    """
    gained = sum(one and not other for one, other in zip(arm, base, strict=True))
    lost = sum(other and not one for one, other in zip(arm, base, strict=True))
    count, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count
    return {"gained": gained, "lost": lost, "p": min(1.0, 2 * tail)}


def probe(rows: Sequence[Row]) -> Mapping[str, Tensor]:
    """Rows as the batch that `check_qat_stability` takes."""
    ids = padded(rows)
    attention, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE_INDEX)
    for number, row in enumerate(rows):
        attention[number, : len(row.ids)] = 1
        labels[number, row.start : len(row.ids)] = ids[number, row.start : len(row.ids)]
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}
