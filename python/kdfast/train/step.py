"""One optimiser step: counts first, then every micro-batch, then one update."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.errors import DataError, KdfastError
from kdfast.losses.term import Term, supervised_mask
from kdfast.student import supervised_logits
from kdfast.train.objective import Batch, Objective
from kdfast.train.ranks import Ranks


class SupervisedForward(nn.Module):
    """The student as the loop runs it: logits at the given positions only, [N,V] instead of [B,T,V]."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student: Any = student

    def forward(self, input_ids: Tensor, attention_mask: Tensor, mask: Tensor) -> Tensor:
        """The logits [N,V] at the positions of mask [B,T]."""
        return supervised_logits(self.student, input_ids, attention_mask, mask)


@dataclass(frozen=True)
class Runner:
    """Everything that a forward pass of the loop needs.

    Attributes:
        model: `SupervisedForward`, under DDP when there are several ranks.
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

    def to_device(self, batch: Batch) -> dict[str, Tensor]:
        """The batch on the student's device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def forward(self, batch: Batch) -> tuple[dict[str, Term], Tensor, Tensor]:
        """Terms, logits [N,V] and their positions [B,T] of one micro-batch on the device."""
        mask = supervised_mask(batch)
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()
        with autocast:
            logits = self.model(batch["input_ids"], batch["attention_mask"], mask)
        return self._terms(logits, batch, mask), logits, mask

    def _terms(self, logits: Tensor, batch: Batch, mask: Tensor) -> dict[str, Term]:
        try:
            return self.objective.terms(logits, batch, mask)
        except DataError as error:
            raise DataError(f"{error}; the micro-batch held dataset rows {_rows(batch)}") from error
        except FloatingPointError as error:
            raise KdfastError(
                f"training diverged: {error}; go back to a checkpoint or lower optimizer.learning_rate; the "
                f"micro-batch held dataset rows {_rows(batch)}"
            ) from error

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Forward and backward of this rank's micro-batches of one optimiser step; gradients are left in place.

        Returns:
            the step's loss, each term's mean and the tokens read, over all ranks.
        """
        local = [self.objective.counts(batch) for batch in batches]
        counts = self.ranks.sum(
            {name: sum(count[name] for count in local) for name in self.objective.weights}
        )
        sums = dict.fromkeys(counts, 0.0)
        tokens = 0.0
        for number, cpu_batch in enumerate(batches, 1):
            last = number == len(batches)
            hold = isinstance(self.model, DistributedDataParallel) and not last
            with self.model.no_sync() if hold else nullcontext():  # type: ignore[operator]
                batch = self.to_device(cpu_batch)
                terms, _, _ = self.forward(batch)
                # DDP averages the ranks' gradients, but the loss is their sum
                (self.objective.loss(terms, counts) * self.ranks.world).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                sums[name] += float(term.total.detach())
            tokens += float(cpu_batch["attention_mask"].sum())
        sums = self.ranks.sum({**sums, "tokens": tokens})
        return self._report(sums, counts)

    def _report(self, sums: dict[str, float], counts: dict[str, float]) -> dict[str, float]:
        values = means(sums, counts)
        loss = sum(self.objective.weights[name] * value for name, value in values.items())
        return {"loss": loss, **values, "tokens": sums["tokens"]}


def _rows(batch: Batch) -> list[int]:
    return sorted(set(batch["row"].tolist()))


def means(sums: dict[str, float], counts: dict[str, float]) -> dict[str, float]:
    """Each term's mean; a term without positions has none.

    Examples:
        >>> means({"kl": 3.0, "ce_truth": 0.0}, {"kl": 6.0, "ce_truth": 0.0})
        {'kl': 0.5}
    """
    return {name: sums[name] / count for name, count in counts.items() if count > 0}
