"""Which positions and rows the early tool-call loss looks at: made from the batch alone, before any forward."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.config import DataConfig
from kdfast.losses.latency.positions import Layout, batch_field, response_columns, row_numbers

PARTS = ("early_tool_ce", "early_tool_prior", "early_tool_preamble", "early_tool_negative")
"""The parts of the loss, as metrics spell them."""

MAX_TOKENS: int = DataConfig.default("prefix_tokens")
"""Most first tokens of a call that are taught, where a caller does not say."""

DEFAULT_PARTS = PARTS[:2]
"""The parts whose default weight is not 0."""


@dataclass(frozen=True)
class EarlyToolPlan:
    """What each part of the early tool-call loss counts. All masks are label-aligned.

    Attributes:
        parts: the parts asked for.
        targets: [B,T] int64, the ids that cross-entropy is to teach: the first ids of the teacher's call, from t0 on;
            -100 elsewhere.
        prior: [B,T] bool, t0 of the rows that should call and have no prefix of the teacher's call.
        preamble: [B,T] bool, all answer positions before t0, in rows that should call and whose call has text before.
        negative: [B,T] bool, the first answer position of rows that must not call.
        opening: [B,T] bool, where call-opening log-odds are needed: `prior | preamble | negative`, less the parts that
            were not asked for. No position is in two of them.
        counts: each part asked for -> what it counts: target tokens (`early_tool_ce`), else rows.
        rows: rows by kind: `all`, `should_use`, `target_available` (with at least one target).
        skipped: rows that neither cross-entropy nor prior can act on, by reason: `not_needed` (must not call),
            `no_flag` (the batch does not say), `no_response` (no answer position in the batch).
        numbers: [B] int64, what messages call the rows.
        opening_rows: [M] int64, places in the batch of the rows that the entries of `opening` are in.
        entries: part -> [.] int64, its entries among those of `opening`.
        preamble_layout: where the entries of `preamble` stand, if that part was asked for.
    """

    parts: tuple[str, ...]
    targets: Tensor
    prior: Tensor
    preamble: Tensor
    negative: Tensor
    opening: Tensor
    counts: Mapping[str, int]
    rows: Mapping[str, int]
    skipped: Mapping[str, int]
    numbers: Tensor
    opening_rows: Tensor = field(repr=False)
    entries: Mapping[str, Tensor] = field(repr=False)
    preamble_layout: Layout = field(repr=False)


def early_tool_plan(
    batch: Mapping[str, Tensor], *, max_tokens: int = MAX_TOKENS, parts: Collection[str] = DEFAULT_PARTS
) -> EarlyToolPlan:
    """Plans the early tool-call loss of a batch.

    t0 is where the first call of the (last) answer begins; where the answer holds none, where the answer begins. The
    first prefix id is a target at t0. A later one is a target only while the answer's own tokens agree with the prefix
    so far, since they are what the student reads, and only inside the answer.

    Args:
        batch: `labels` [B,T] int64, `response_start`, `response_length` [B]; where known `tool_should_be_used` [B]
            bool (without it nothing is planned), `tool_call_mask` [B,T] bool, `teacher_prefix_ids` [B,N] int64 (-100
            after the last id), `row` [B].
        max_tokens: most targets a row; the batch's N bounds them too.
        parts: the parts whose log-odds and counts are wanted, out of `PARTS`.

    Raises:
        ValueError: `max_tokens` below 1, an unknown part, or the batch lacks a field.

    Example:
        >>> batch = {"labels": torch.tensor([[-100, 7, 8, 2]]), "response_start": torch.tensor([2])}
        >>> batch |= {"response_length": torch.tensor([3]), "tool_should_be_used": torch.tensor([True])}
        >>> early_tool_plan(batch | {"teacher_prefix_ids": torch.tensor([[7, 9, 5]])}).targets  # 5 would follow 9
        tensor([[-100,    7,    9, -100]])
        >>> early_tool_plan(batch).prior
        tensor([[False,  True, False, False]])
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1: {max_tokens}")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"parts must be some of {', '.join(PARTS)}: {unknown[0]}")
    labels = batch_field(batch, "labels")
    first, last = response_columns(batch)
    columns = torch.arange(labels.shape[1], device=labels.device)
    inside = (columns >= first[:, None]) & (columns <= last[:, None])
    call = batch["tool_call_mask"].bool() & inside if "tool_call_mask" in batch else torch.zeros_like(inside)
    calls = call.any(1)
    t0 = torch.where(calls, call.int().argmax(1), first)
    usable = (inside & (columns == t0[:, None])).any(1)  # something predicts the token at t0
    flagged = "tool_should_be_used" in batch
    should = batch["tool_should_be_used"].bool() if flagged else torch.zeros_like(usable)
    must_not = ~should & usable if flagged else should
    targets = _targets(batch, t0, last, should & usable, max_tokens)
    wanted = (targets != IGNORE_INDEX).any(1)
    at_t0 = columns == t0[:, None]
    prior = at_t0 & (should & usable & ~wanted)[:, None]
    preamble = inside & (columns < t0[:, None]) & (should & calls)[:, None]
    negative = inside & (columns == first[:, None]) & must_not[:, None]
    rows = {"all": len(labels), "should_use": int(should.sum()), "target_available": int(wanted.sum())}
    return _assemble(
        {"targets": targets, "numbers": row_numbers(batch)},
        dict(zip(PARTS[1:], (prior, preamble, negative), strict=True)),
        tuple(part for part in PARTS if part in parts),
        rows,
        {
            "not_needed": int((~should).sum()) if flagged else 0,
            "no_flag": 0 if flagged else len(labels),
            "no_response": int((should & ~usable).sum()),
        },
    )


def _targets(batch: Mapping[str, Tensor], t0: Tensor, last: Tensor, rows: Tensor, max_tokens: int) -> Tensor:
    """The target ids [B,T] of some rows, -100 elsewhere."""
    labels = batch["labels"]
    targets = torch.full_like(labels, IGNORE_INDEX)
    if "teacher_prefix_ids" not in batch or not batch["teacher_prefix_ids"].shape[1]:
        return targets
    prefix = batch["teacher_prefix_ids"][:, :max_tokens].to(labels.dtype)
    columns = t0[:, None] + torch.arange(prefix.shape[1], device=labels.device)
    given = (prefix != IGNORE_INDEX).cumprod(1).bool()
    held = columns.clamp(0, labels.shape[1] - 1)
    agrees = (labels.gather(1, held) == prefix).cumprod(1).bool()
    so_far = torch.cat([torch.ones_like(agrees[:, :1]), agrees[:, :-1]], 1)
    inside = (columns <= last[:, None]) & (columns < labels.shape[1])
    row, place = (given & so_far & inside & rows[:, None]).nonzero(as_tuple=True)
    targets[row, columns[row, place]] = prefix[row, place]
    return targets


def _assemble(
    tensors: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    parts: tuple[str, ...],
    rows: Mapping[str, int],
    skipped: Mapping[str, int],
) -> EarlyToolPlan:
    """The plan with all that follows from the masks of the parts."""
    asked = [masks[part] for part in parts if part in masks]
    nothing = torch.zeros_like(tensors["targets"], dtype=torch.bool)
    opening = torch.stack([nothing, *asked]).any(0)
    counts = {part: int(masks[part].any(1).sum()) for part in parts if part in masks}
    if "early_tool_ce" in parts:
        counts["early_tool_ce"] = int((tensors["targets"] != IGNORE_INDEX).sum())
    asked_preamble = masks["early_tool_preamble"] if "early_tool_preamble" in parts else nothing
    return EarlyToolPlan(
        parts=parts,
        targets=tensors["targets"],
        prior=masks["early_tool_prior"],
        preamble=masks["early_tool_preamble"],
        negative=masks["early_tool_negative"],
        opening=opening,
        counts={part: counts[part] for part in parts},
        rows=rows,
        skipped=skipped,
        numbers=tensors["numbers"],
        opening_rows=opening.nonzero()[:, 0],
        entries={part: masks[part][opening].nonzero()[:, 0] for part in parts if part in masks},
        preamble_layout=Layout.of(asked_preamble),
    )
