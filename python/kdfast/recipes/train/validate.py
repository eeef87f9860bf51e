"""Validation: the loss terms on held-out rows, and how often student and teacher agree on the next token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kdfast.data import KDDataset, collate_kd_batch
from kdfast.losses import IGNORE_INDEX, StepWeights, early_tool_plan, supervised_mask
from kdfast.losses.latency.positions import positions_in
from kdfast.recipes.train.objective import Batch, Objective
from kdfast.recipes.train.step import Runner, means


def validate(
    runner: Runner,
    dataset: KDDataset,
    *,
    rows: int,
    micro_batch_size: int,
    on_progress: Callable[[int], None],
) -> dict[str, float]:
    """Means over the first `rows` held-out rows (0 = all).

    Returns:
        `loss` (by the weights at the end of the run; only where some term acts on a row), each term's mean,
        `token_accuracy` (the student's likeliest token is the label), `token_agreement` (it is the teacher's likeliest
        token; only where a teacher distribution is known: with a live teacher, everywhere), `false_opening_rate` (it
        would open a tool call at the start of answers that must not call) and, under `kd.on_nan: skip_row`, the number
        of `skipped_rows`.

    Raises:
        DataError: a batch cannot be right; the message names its rows.
        DivergedError: a term is not finite, on this rank or another one.
    """
    # self-distillation is on in a part of the run only
    runner = replace(runner, objective=runner.objective.with_self_teaching(0.0, 1.0))
    weights = runner.objective.final_weights
    chosen = list(range(min(rows or len(dataset), len(dataset))))
    chosen.sort(key=lambda row: int(dataset.lengths[row]))  # alike lengths share a batch: less padding
    batches = [chosen[start : start + micro_batch_size] for start in range(0, len(chosen), micro_batch_size)]
    sums = dict.fromkeys((*weights, *(f"count_{name}" for name in weights), *_COUNTED), 0.0)
    was_training = runner.model.training
    runner.model.eval()
    try:
        with runner.together(), torch.no_grad():
            for number, part in enumerate(batches):
                if number % runner.ranks.world == runner.ranks.rank:
                    for name, value in _sums(runner, collate_kd_batch(dataset.__getitems__(part))).items():
                        sums[name] += value
                on_progress(len(part))
    finally:
        runner.model.train(was_training)  # also after an error: a run may go back to a checkpoint and go on
    sums = runner.ranks.sum(sums)
    values = means(sums, {name: sums[f"count_{name}"] for name in weights})
    loss = sum(weight * values[name] for name, weight in weights.items() if name in values)
    report = {
        **({"loss": loss} if values else {}),
        **values,
        "token_accuracy": sums["right"] / sums["labels"],
    }
    for name, (part_of, whole) in _SHARES.items():
        if sums[whole]:
            report[name] = sums[part_of] / sums[whole]
    if sums["skipped"]:
        report["skipped_rows"] = sums["skipped"]
    return report


_COUNTED = ("right", "labels", "agreed", "taught", "opened", "no_call_due", "skipped")
_SHARES = {
    "token_agreement": ("agreed", "taught"),
    "false_opening_rate": ("opened", "no_call_due"),
}


def _sums(runner: Runner, batch: Batch) -> dict[str, float]:
    """The sums of one batch, which is on the CPU."""
    plan = runner.plan(batch)
    # without states: each row by its own hinge, so that losses of different steps compare
    step = StepWeights(runner.objective.final_weights, plan.counts)
    loss = runner.read(runner.loss(runner.bare, batch, plan, step, want_best=True), batch)
    sums = {name: float(term.total) for name, term in loss.terms.items()}
    sums |= {f"count_{name}": count for name, count in plan.counts.items()}
    sums["skipped"] = float(sum(term.skipped for term in loss.terms.values()))
    guess = loss.best.cpu()
    return sums | _agreement(guess, loss.teacher_best, batch) | _openings(guess, batch, runner.objective)


def _openings(guess: Tensor, batch: Batch, objective: Objective) -> dict[str, float]:
    """In how many rows that must not call the likeliest first token opens a call."""
    first = early_tool_plan(batch, parts=("early_tool_negative",)).opening
    there = guess[positions_in(supervised_mask(batch), first)]
    opening = torch.tensor(objective.settings.opening_ids, dtype=torch.int64)
    return {"opened": float(torch.isin(there, opening).sum()), "no_call_due": float(len(there))}


def _agreement(guess: Tensor, live: Tensor | None, batch: Batch) -> dict[str, float]:
    """How often the likeliest ids [N] are the labels, and the teacher's: a live one's [N], or those of the store."""
    mask = supervised_mask(batch)
    labels = batch["labels"][mask]
    sums = {
        "right": float((guess == labels).sum()),
        "labels": float((labels != IGNORE_INDEX).sum()),
    }
    if live is not None:
        sums |= {"agreed": float((guess == live.cpu()).sum()), "taught": float(len(guess))}
    elif "teacher_topk_mask" in batch:
        known = batch["teacher_topk_mask"][mask]
        best = batch["teacher_topk_logp"][mask].argmax(1, keepdim=True)
        favourite = batch["teacher_topk_ids"][mask].gather(1, best)[:, 0]
        sums |= {"agreed": float(((guess == favourite) & known).sum()), "taught": float(known.sum())}
    return sums
