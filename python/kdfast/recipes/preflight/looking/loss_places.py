"""Where each loss term may act, and what it costs there: from the batch's own fields, without the losses' plans."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kdfast.batch import IGNORE_INDEX, SOURCES
from kdfast.config.kd import KDConfig
from kdfast.losses import LossSettings, TeacherOutput
from kdfast.recipes.preflight.looking import loss_reference as reference

Batch = Mapping[str, Tensor]


class Seen(Protocol):
    """What a term's costs are made of: a batch and the forward passes on it."""

    @property
    def batch(self) -> Batch:
        """The batch, of T' columns."""

    @property
    def settings(self) -> LossSettings:
        """The losses' settings."""

    @property
    def hidden_layers(self) -> Mapping[int, Tensor]:
        """Layer -> [B,T',D] hidden states of the student."""

    @property
    def teacher(self) -> TeacherOutput | None:
        """What a live teacher gave."""

    @property
    def projectors(self) -> nn.Module | None:
        """What maps the student's width to the teacher's, a layer each."""

    def logits(self, where: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """(row, column, [V] float64 logits) at the places of a mask [B,T']."""

    def teacher_logits(self, row: int, column: int) -> Tensor:
        """[Vt] float64 logits of the live teacher."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is known of a term.

    Attributes:
        where: (batch of T' columns, settings) -> [B,T'] bool, where it may act.
        cost: (what was seen, `where`) -> its sum over the batch, by `loss_reference`.
        everywhere: whether it has a gradient at each of these places; else some may cost nothing.
        signed: whether it may be negative.
    """

    where: Callable[[Batch, LossSettings], Tensor]
    cost: Callable[[Seen, Tensor], float]
    everywhere: bool = True
    signed: bool = False


def supervised(batch: Batch) -> Tensor:
    """[B,T'] bool, positions with a label, a stored distribution or drawn ids."""
    found = (batch["labels"] != IGNORE_INDEX) | _drawn(batch)
    return found | batch["teacher_topk_mask"] if "teacher_topk_mask" in batch else found


def _nowhere(batch: Batch) -> Tensor:
    return torch.zeros_like(batch["labels"], dtype=torch.bool)


def _drawn(batch: Batch) -> Tensor:
    counts = batch.get("teacher_sample_counts")
    return _nowhere(batch) if counts is None else (counts > 0).any(-1)


def _taught(batch: Batch, settings: LossSettings) -> Tensor:
    return supervised(batch) if settings.live_teacher else batch.get("teacher_topk_mask", _nowhere(batch))


def _labelled(source: str, batch: Batch, settings: LossSettings) -> Tensor:
    del settings
    return (batch["labels"] != IGNORE_INDEX) & (batch["source"] == SOURCES[source])[:, None]


def _unlearned(batch: Batch, settings: LossSettings) -> Tensor:
    """Tokens that nothing supervises and that have a next token."""
    del settings
    token = batch["attention_mask"].bool()
    follows = torch.zeros_like(token)
    follows[:, :-1] = token[:, 1:]
    return token & follows & ~supervised(batch)


def _after_the_first(batch: Batch, settings: LossSettings) -> Tensor:
    del settings
    where = batch["attention_mask"].bool().clone()
    where[:, 0] = False
    return where


def answer_columns(batch: Batch, row: int) -> range:
    """The columns that predict the tokens of a row's (last) answer.

    Example:
        >>> one = {"labels": torch.zeros(1, 6), "response_start": torch.tensor([3])}
        >>> answer_columns(one | {"response_length": torch.tensor([2])}, 0)
        range(2, 4)
    """
    start, width = int(batch["response_start"][row]), batch["labels"].shape[1]
    return range(max(start - 1, 0), min(start - 1 + int(batch["response_length"][row]), width))


def _called(batch: Batch, row: int) -> list[int]:
    if "tool_call_mask" not in batch:
        return []
    return [column for column in answer_columns(batch, row) if bool(batch["tool_call_mask"][row, column])]


def ends(batch: Batch, row: int, settings: LossSettings) -> list[int]:
    """The columns at which an answer may end: its last one and those after its last call; none if it was cut."""
    start, length = int(batch["response_start"][row]), int(batch["response_length"][row])
    columns = answer_columns(batch, row)
    if not columns or len(columns) != length or start < 1:
        return []
    if int(batch["labels"][row, columns[-1]]) not in settings.eos_ids:
        return []
    should, whole = batch.get("tool_should_be_used"), batch.get("required_fields_present")
    if should is not None and whole is not None and bool(should[row]) and not bool(whole[row]):
        return []
    calls = _called(batch, row)
    return [*range(calls[-1] + 1, columns[-1]), columns[-1]] if calls else [columns[-1]]


def _ends(batch: Batch, settings: LossSettings) -> Tensor:
    where = _nowhere(batch)
    for row in range(len(where)):
        where[row, ends(batch, row, settings)] = True
    return where


def early(part: str, batch: Batch, settings: LossSettings) -> dict[tuple[int, int], int]:
    """The places of one part of the early-tool loss: (row, column) -> the id that is taught there, else -1."""
    found: dict[tuple[int, int], int] = {}
    if "tool_should_be_used" not in batch:
        return found
    for row in range(len(batch["labels"])):
        columns, calls = answer_columns(batch, row), _called(batch, row)
        first = int(batch["response_start"][row]) - 1
        opens = calls[0] if calls else first
        if opens not in columns:
            continue
        if not bool(batch["tool_should_be_used"][row]):
            some = {first: -1} if part == "early_tool_negative" else {}
        elif part == "early_tool_preamble":
            some = {column: -1 for column in columns if column < opens and calls}
        else:
            some = _first_ids(batch, row, opens, settings.prefix_tokens)
            if part == "early_tool_prior":
                some = {} if some else {opens: -1}
            elif part != "early_tool_ce":
                some = {}
        found |= {(row, column): token for column, token in some.items()}
    return found


def _first_ids(batch: Batch, row: int, opens: int, most: int) -> dict[int, int]:
    """Column -> the id of the teacher's call, while the answer agrees with it so far."""
    if "teacher_prefix_ids" not in batch:
        return {}
    found, columns = {}, answer_columns(batch, row)
    for offset, token in enumerate(batch["teacher_prefix_ids"][row, :most].tolist()):
        if token == IGNORE_INDEX or opens + offset not in columns:
            break
        found[opens + offset] = token
        if int(batch["labels"][row, opens + offset]) != token:
            break
    return found


def _early(part: str, batch: Batch, settings: LossSettings) -> Tensor:
    where = _nowhere(batch)
    for row, column in early(part, batch, settings):
        where[row, column] = True
    return where & supervised(batch)


def _label_costs(seen: Seen, where: Tensor) -> float:
    kd, batch = seen.settings.kd, seen.batch
    total = 0.0
    for row, column, logits in seen.logits(where):
        weight = 1.0
        for name, more in (("tool_name_mask", kd.name_weight), ("tool_args_mask", kd.args_weight)):
            weight += more * bool(name in batch and batch[name][row, column])
        total += weight * reference.label_cost(logits, int(batch["labels"][row, column]))
    return total


def _taught_costs(seen: Seen, where: Tensor) -> float:
    if seen.settings.live_teacher:
        return _dense_costs(seen, where)
    batch, total = seen.batch, 0.0
    for row, column, logits in seen.logits(where):
        ids, logp, tail = (batch[f"teacher_{name}"][row, column] for name in _STORED)
        total += reference.stored_divergence(
            logits, ids.tolist(), logp.tolist(), float(tail), seen.settings.kd
        )
    return total


_STORED = ("topk_ids", "topk_logp", "tail_logp")


def _dense_costs(seen: Seen, where: Tensor) -> float:
    kd = seen.settings.kd
    return sum(
        reference.dense_divergence(logits, seen.teacher_logits(row, column), kd)
        for row, column, logits in seen.logits(where)
    )


def _drawn_costs(seen: Seen, where: Tensor) -> float:
    ids, counts = seen.batch["teacher_sample_ids"], seen.batch["teacher_sample_counts"]
    return sum(
        reference.drawn_cost(logits, ids[row, column].tolist(), counts[row, column].tolist())
        for row, column, logits in seen.logits(where)
    )


def _length_costs(seen: Seen, where: Tensor) -> float:
    kd, total = seen.settings.kd, 0.0
    odds: dict[int, dict[int, float]] = {}
    for row, column, logits in seen.logits(where):
        token = column - int(seen.batch["response_start"][row]) + 2
        odds.setdefault(row, {})[token] = reference.log_odds(logits, seen.settings.eos_ids)
    for row, some in odds.items():
        excess = reference.length_excess(some, int(seen.batch["response_length"][row]), kd)
        total += kd.length_slope * (excess if kd.length_aggregate == "ema" else max(excess, 0.0))
    return total


def _prefix_costs(seen: Seen, where: Tensor) -> float:
    taught = early("early_tool_ce", seen.batch, seen.settings)
    return sum(
        reference.label_cost(logits, taught[row, column]) for row, column, logits in seen.logits(where)
    )


def _opening_costs(sign: float, seen: Seen, where: Tensor) -> float:
    return sum(
        -float(
            logsigmoid(torch.tensor(sign * reference.log_odds(logits, seen.settings.opening_ids)).double())
        )
        for _, _, logits in seen.logits(where)
    )


def _preamble_costs(seen: Seen, where: Tensor) -> float:
    odds: dict[int, list[float]] = {}
    for row, _, logits in seen.logits(where):
        odds.setdefault(row, []).append(reference.log_odds(logits, seen.settings.opening_ids))
    free = seen.settings.kd.max_preamble_tokens
    return sum(max(reference.tokens_before_opening(some) - free, 0.0) for some in odds.values())


def layer_pairs(kd: KDConfig) -> list[tuple[int, int]]:
    """(the student's layer, the teacher's) that are compared.

    Example:
        >>> layer_pairs(KDConfig())
        [(-1, -1)]
    """
    ours, theirs = kd.hidden_state_student_layers, kd.hidden_state_teacher_layers
    return [(-1, -1)] if ours is None or theirs is None else list(zip(ours, theirs, strict=True))


def _hidden_costs(seen: Seen, where: Tensor) -> float:
    kd, pairs, total = seen.settings.kd, layer_pairs(seen.settings.kd), 0.0
    if seen.teacher is None:
        return total
    for number, (ours, theirs) in enumerate(pairs):
        student = seen.hidden_layers[ours].detach()[where].double()  # [n,D]
        if isinstance(seen.projectors, nn.ModuleList):
            (weight,) = seen.projectors[number].parameters()  # [Dt,D]
            student = student @ weight.detach().double().T
        teacher = seen.teacher.layers[theirs][where].double()
        for one, other in zip(student, teacher, strict=True):
            total += reference.hidden_distance(one, other, kd.hidden_state_form)
    return total / len(pairs)


PLACES: dict[str, Place] = {
    "kl": Place(where=_taught, cost=_taught_costs),
    "sampled_kl": Place(where=lambda batch, _: _drawn(batch), cost=_drawn_costs),
    "ce_teacher": Place(where=functools.partial(_labelled, "teacher"), cost=_label_costs),
    "ce_truth": Place(where=functools.partial(_labelled, "truth"), cost=_label_costs),
    "length": Place(where=_ends, cost=_length_costs, everywhere=False, signed=True),
    "early_tool_ce": Place(where=functools.partial(_early, "early_tool_ce"), cost=_prefix_costs),
    "early_tool_prior": Place(
        where=functools.partial(_early, "early_tool_prior"), cost=functools.partial(_opening_costs, 1.0)
    ),
    "early_tool_preamble": Place(
        where=functools.partial(_early, "early_tool_preamble"), cost=_preamble_costs, everywhere=False
    ),
    "early_tool_negative": Place(
        where=functools.partial(_early, "early_tool_negative"), cost=functools.partial(_opening_costs, -1.0)
    ),
    "hidden_state": Place(where=_after_the_first, cost=_hidden_costs),
    "prompt_kl": Place(where=_unlearned, cost=_dense_costs),
}
"""Every term whose weight is a key of `kd`."""
