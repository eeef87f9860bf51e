"""Validation: the loss terms on held-out rows, and how often student and teacher agree on the next token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdfast.data import KDDataset, collate_kd_batch
from kdfast.losses.term import IGNORE_INDEX
from kdfast.train.objective import Batch
from kdfast.train.step import Runner, means


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
        `loss`, each term's mean, `token_accuracy` (the student's likeliest token is the label) and
        `token_agreement` (it is the teacher's likeliest token; only where a teacher distribution is known).
    """
    names = runner.objective.weights
    chosen = list(range(min(rows or len(dataset), len(dataset))))
    chosen.sort(key=lambda row: int(dataset.lengths[row]))  # alike lengths share a batch: less padding
    batches = [chosen[start : start + micro_batch_size] for start in range(0, len(chosen), micro_batch_size)]
    sums = dict.fromkeys(
        (*names, *(f"count_{name}" for name in names), "right", "labels", "agreed", "taught"), 0.0
    )
    was_training = runner.model.training
    runner.model.eval()
    with torch.no_grad():
        for number, part in enumerate(batches):
            if number % runner.ranks.world == runner.ranks.rank:
                for name, value in _sums(runner, collate_kd_batch(dataset.__getitems__(part))).items():
                    sums[name] += value
            on_progress(len(part))
    runner.model.train(was_training)
    sums = runner.ranks.sum(sums)
    values = means(sums, {name: sums[f"count_{name}"] for name in names})
    loss = sum(weight * values[name] for name, weight in names.items() if name in values)
    report = {"loss": loss, **values, "token_accuracy": sums["right"] / sums["labels"]}
    if sums["taught"]:
        report["token_agreement"] = sums["agreed"] / sums["taught"]
    return report


def _sums(runner: Runner, cpu_batch: Batch) -> dict[str, float]:
    batch = runner.to_device(cpu_batch)
    # the bare module: DDP's forward would wait for ranks that hold fewer batches
    bare = Runner(
        getattr(runner.model, "module", runner.model),
        runner.objective,
        runner.device,
        runner.autocast,
        runner.ranks,
    )
    terms, logits, mask = bare.forward(batch)
    sums = {name: float(term.total) for name, term in terms.items()}
    sums |= {f"count_{name}": count for name, count in runner.objective.counts(cpu_batch).items()}
    return sums | _agreement(logits.argmax(1), batch, mask)


def _agreement(guess: Tensor, batch: Batch, mask: Tensor) -> dict[str, float]:
    labels = batch["labels"][mask]
    sums = {
        "right": float((guess == labels).sum()),
        "labels": float((labels != IGNORE_INDEX).sum()),
    }
    if "teacher_topk_mask" in batch:
        known = batch["teacher_topk_mask"][mask]
        best = batch["teacher_topk_logp"][mask].argmax(1, keepdim=True)
        favourite = batch["teacher_topk_ids"][mask].gather(1, best)[:, 0]
        sums |= {"agreed": float(((guess == favourite) & known).sum()), "taught": float(known.sum())}
    return sums
