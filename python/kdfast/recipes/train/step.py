"""One optimiser step: counts first, then every micro-batch, then one update."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.distributed.ranks import Ranks
from kdfast.errors import DataError, KdfastError
from kdfast.losses import CombinedLoss
from kdfast.recipes.train.objective import Batch, Objective, StepWeights
from kdfast.student import hidden_and_head


class StudentLoss(nn.Module):
    """The student as the loop runs it: a batch in, its losses out. Logits of a whole batch never exist."""

    def __init__(self, student: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.student: Any = student
        self.objective = objective

    def forward(self, batch: Batch, step: StepWeights, want_best: bool = False) -> CombinedLoss:
        """The losses of a micro-batch on the student's device."""
        hidden, head = hidden_and_head(self.student, batch["input_ids"], batch["attention_mask"])
        return self.objective.loss(hidden, head, batch, step, want_best=want_best)


@dataclass
class StepReport:
    """What one optimiser step cost, over all ranks.

    Attributes:
        values: the loss, each term's mean, diagnostics and the tokens read.
        mean_excess: of the length loss's rows; None where it counted none.
    """

    values: dict[str, float]
    mean_excess: float | None


@dataclass
class _Sums:
    """What a step adds up over its micro-batches."""

    sums: dict[str, float] = field(default_factory=dict)
    relative_excess: list[float] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value

    def add_loss(self, loss: CombinedLoss) -> None:
        for name, term in loss.terms.items():
            self.add(name, float(term.total.detach()))
            self.add("skipped_rows", float(term.skipped))
        for name, term in loss.diagnostics.items():
            self.add(f"sum {name}", float(term.total))
            self.add(f"count {name}", float(term.count))
        for reason, rows in loss.left_out.items():
            self.add(f"left_out.{reason}", float(rows))
        self.add("excess", float(loss.excess.double().sum()))
        self.add("excess_rows", float(len(loss.excess)))
        self.relative_excess += loss.relative_excess.tolist()


@dataclass(frozen=True)
class Runner:
    """Everything that a forward pass of the loop needs.

    Attributes:
        model: `StudentLoss`, under DDP when there are several ranks.
        objective: the loss.
        device: where the student is.
        autocast: bf16 autocast, or fp32 throughout.
        ranks: this process among the others.
    """

    model: nn.Module
    objective: Objective
    device: torch.device
    autocast: bool
    ranks: Ranks

    def to_device(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch on the student's device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def loss(
        self, model: nn.Module, batch: Batch, step: StepWeights, *, want_best: bool = False
    ) -> CombinedLoss:
        """The losses of one micro-batch on the device.

        Raises:
            DataError: a batch that cannot be right; the message names its rows.
            KdfastError: a term is not finite; the message names it and the rows.
        """
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()
        try:
            with autocast:
                loss: CombinedLoss = model(batch, step, want_best)
        except DataError as error:
            raise DataError(f"{error}; the micro-batch held dataset rows {_rows(batch)}") from error
        except FloatingPointError as error:
            raise KdfastError(
                f"training diverged: {error}; go back to a checkpoint or lower optimizer.learning_rate, or leave such "
                f"rows out with kd.on_nan: skip_row; the micro-batch held dataset rows {_rows(batch)}"
            ) from error
        return loss

    def step(self, batches: Sequence[Batch], number: int, length_average: float | None) -> StepReport:
        """Forward and backward of this rank's micro-batches of one optimiser step; gradients are left in place.

        Args:
            batches: on the CPU.
            number: of the step, 0-based: it decides the weights.
            length_average: of earlier steps' mean excess length; None = no step yet.
        """
        objective = self.objective
        weights = objective.weights(number)
        local = [objective.counts(batch) for batch in batches]
        counts = self.ranks.sum({name: sum(count[name] for count in local) for name in weights})
        step = StepWeights(weights, counts, objective.hinge_open(length_average))
        sums = _Sums(dict.fromkeys((*weights, "skipped_rows", "tokens"), 0.0))
        for index, cpu_batch in enumerate(batches, 1):
            last = index == len(batches)
            hold = isinstance(self.model, DistributedDataParallel) and not last
            with self.model.no_sync() if hold else nullcontext():  # type: ignore[operator]
                loss = self.loss(self.model, self.to_device(cpu_batch), step)
                # DDP averages the ranks' gradients, but the loss is their sum
                (loss.total * self.ranks.world).backward()  # type: ignore[no-untyped-call]
            sums.add_loss(loss)
            sums.add("tokens", float(cpu_batch["attention_mask"].sum()))
        return self._report(sums, counts, weights)

    def _report(self, sums: _Sums, counts: dict[str, float], weights: dict[str, float]) -> StepReport:
        total = self.ranks.sum(sums.sums)
        values = means(total, counts)
        report = {"loss": sum(weights[name] * value for name, value in values.items()), **values}
        for name in [key.removeprefix("count ") for key in total if key.startswith("count ")]:
            if total[f"count {name}"]:
                report[name] = total[f"sum {name}"] / total[f"count {name}"]
        if relative := self.ranks.gather(sums.relative_excess):
            report["len_kd.median_rel_excess"] = statistics.median(relative)
        report |= {name: value for name, value in total.items() if name.startswith("left_out.") and value}
        if total["skipped_rows"]:
            report["skipped_rows"] = total["skipped_rows"]
        rows = total.get("excess_rows", 0.0)
        return StepReport(report | {"tokens": total["tokens"]}, total["excess"] / rows if rows else None)


def _rows(batch: Batch) -> list[int]:
    return sorted(set(batch["row"].tolist()))


def means(sums: dict[str, float], counts: dict[str, float]) -> dict[str, float]:
    """Each term's mean; a term without positions has none.

    Examples:
        >>> means({"kl": 3.0, "ce_truth": 0.0}, {"kl": 6.0, "ce_truth": 0.0})
        {'kl': 0.5}
    """
    return {name: sums[name] / count for name, count in counts.items() if count > 0}
