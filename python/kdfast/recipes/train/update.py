"""One optimiser update from micro-batches, for the loop and for loops that users write themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from kdfast.distributed.ranks import Ranks
from kdfast.errors import DataError, DivergedError
from kdfast.losses import State
from kdfast.recipes.train.objective import Batch, Objective
from kdfast.recipes.train.step import Runner, StepReport, StudentLoss

_NEEDED = {
    "input_ids": "",
    "attention_mask": " (1 = a token, 0 = padding)",
    "labels": " (the next token at each position, -100 = not learned)",
    "source": " (0 = the teacher wrote the answer, 1 = it is the ground truth)",
}
"""The fields that every loss needs, and what they hold."""


def train_step(
    student: nn.Module,
    batch: Batch | Sequence[Batch],
    *,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    step: int = 0,
    states: Mapping[str, State] | None = None,
    max_grad_norm: float = 1.0,
) -> StepReport:
    """One training step of a loop of your own: forward, backward, clipping, update. The gradients are cleared.

    Args:
        student: a Hugging Face causal language model, on its device; or a `StudentLoss` of it (terms that learn
            parameters of their own, such as the projector of `kd.hidden_state_weight`, need one that lives on).
        batch: what `collate_kd_batch` gives, on the CPU; or several, whose gradients add up as if they were one.
        optimizer: the optimiser of the student's parameters; its learning rate is the caller's.
        objective: the losses, see `Objective.of`.
        step: number of the step, 0-based: it decides the weights that change over the run.
        states: `report.states` of the step before; None = this is the first.
        max_grad_norm: the gradient is scaled down to this norm; 0 = no clipping.

    Returns:
        the report: `values` has `loss`, each term's mean (`kl`, `ce_truth`, ...), diagnostics, `tokens` and
        `grad_norm`; `states` is for the next step.

    Raises:
        DataError: a batch that lacks a field, or cannot be right; the message names its rows.
        DivergedError: a loss or the gradient is not finite; no weight was changed.

    Example::

        dataset = kdfast.KDDataset("train.jsonl", "models/teacher", shapes=[256, 512])
        objective = kdfast.Objective.of(dataset, KDConfig(kl_weight=0, ce_truth_weight=1.0))
        states = None
        for step, batch in enumerate(DataLoader(dataset, batch_size=8, collate_fn=kdfast.collate_kd_batch)):
            report = kdfast.train_step(
                student, batch, optimizer=optimizer, objective=objective, step=step, states=states
            )
            states = report.states
    """
    model = student if isinstance(student, StudentLoss) else StudentLoss(student, objective)
    device = next(model.parameters()).device
    runner = Runner(model.to(device), objective, device, autocast=False, ranks=Ranks())
    batches = [batch] if isinstance(batch, Mapping) else list(batch)
    return update(runner, optimizer, [_usable(one) for one in batches], step, states, max_grad_norm)


def _usable(batch: Batch) -> dict[str, torch.Tensor]:
    """The tensors of a batch; rows without a number of their own are numbered from 0.

    Raises:
        DataError: a field is missing.
    """
    missing = [name for name in _NEEDED if name not in batch]
    if missing:
        raise DataError(
            f"{missing[0]}: the batch lacks this field; give it to every row{_NEEDED[missing[0]]}, the batch has "
            f"{', '.join(batch)}"
        )
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return {"row": torch.arange(len(batch["input_ids"])), **tensors}


def update(
    runner: Runner,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    step: int,
    states: Mapping[str, State] | None,
    max_grad_norm: float,
) -> StepReport:
    """Forward, backward, clipping and one update; `grad_norm` (before clipping) joins the values.

    The gradients are cleared, also after an error: a caller who goes on does not add to them.

    Raises:
        DivergedError: a loss or the gradient is not finite; no weight was changed.
    """
    try:
        report = runner.step(batches, step, states)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(clip_grad_norm_(parameters, max_grad_norm or float("inf")))
        if not math.isfinite(norm):
            raise DivergedError(
                f"training diverged: the gradient's norm at step {step + 1} is {norm}; go back to a checkpoint "
                "(--resume) and lower optimizer.learning_rate"
            )
        optimizer.step()
    finally:
        optimizer.zero_grad(set_to_none=True)
    report.values["grad_norm"] = norm
    return report
