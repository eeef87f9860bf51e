"""One optimiser step: plans and counts first, then every micro-batch, then one update."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.distributed.ranks import Ranks
from kdfast.errors import DataError, DivergedError, KdfastError
from kdfast.losses import BatchPlan, CombinedLoss, PendingLoss, State, StepWeights, StudentOutput
from kdfast.quantized import effective_weight
from kdfast.recipes.train.live_teacher import FrozenTeacher
from kdfast.recipes.train.objective import Batch, Objective
from kdfast.student import hidden_states, right_padded_width

T = TypeVar("T")


class StudentLoss(nn.Module):
    """The student as the loop runs it: a batch in, its losses out. Logits of a whole batch never exist.

    Its parameters are the student's, and those that loss terms learn themselves (`terms`).

    Args:
        student: a causal language model of Hugging Face.
        objective: the loss.
        teacher: a model that runs beside the student, for terms that need a live teacher: no parameter of it is
            learned, moved or saved. A model that is no `FrozenTeacher` becomes one.

    Attributes:
        self_teacher: the student's own earlier state, for the term `self_kl`; it may come and go between steps.
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective,
        teacher: FrozenTeacher | nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.student: Any = student
        self.objective = objective
        self.teacher = FrozenTeacher(teacher) if isinstance(teacher, nn.Module) else teacher
        self.self_teacher: FrozenTeacher | None = None
        width = getattr(getattr(student, "config", None), "hidden_size", 0)
        self.terms = objective.modules((width, width if self.teacher is None else self.teacher.width))

    def forward(
        self, batch: Batch, plan: BatchPlan, step: StepWeights, want_best: bool = False
    ) -> PendingLoss:
        """The losses of a micro-batch; batch and plan are on the student's device.

        The models beside the student run only if the plan needs them.
        """
        ids, layers = batch["input_ids"][:, : plan.width], self.objective.layers
        live = self.teacher if plan.needs("live") else None
        earlier = self.self_teacher if plan.needs("self") else None
        hidden, chosen = hidden_states(self.student, ids, layers.student)
        output = StudentOutput(
            hidden,
            effective_weight(self.student.lm_head),
            chosen,
            teacher=None if live is None else live.output(ids, layers.teacher),
            self_teacher=None if earlier is None else earlier.output(ids),
        )
        modules: Mapping[str, nn.Module] = dict(self.terms.items())
        return self.objective.loss(output, plan, step, modules, want_best=want_best)


@dataclass
class StepReport:
    """What one optimiser step cost, over all ranks.

    Attributes:
        values: the loss, each term's mean, diagnostics and the tokens read.
        states: what the terms remember after the step.
    """

    values: dict[str, float]
    states: dict[str, State]


@dataclass
class _Sums:
    """What a step adds up over its micro-batches."""

    sums: dict[str, float] = field(default_factory=dict)
    medians: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value

    def add_loss(self, loss: CombinedLoss) -> None:
        for name, term in loss.terms.items():
            self.add(name, float(term.total))
            self.add("skipped_rows", float(term.skipped))
        for name, term in loss.diagnostics.items():
            self.add(f"sum {name}", float(term.total))
            self.add(f"count {name}", float(term.count))
        for reason, rows in loss.left_out.items():
            self.add(f"left_out.{reason}", float(rows))
        for entry, numbers in loss.observed.items():
            for name, value in numbers.items():
                self.add(f"observed {entry} {name}", value)
        for name, values in loss.medians.items():
            self.medians.setdefault(name, []).extend(values)


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

    @property
    def bare(self) -> StudentLoss:
        """The model without DDP, whose forward would wait for ranks that hold fewer batches."""
        model: Any = self.model
        bare: StudentLoss = model.module if isinstance(model, DistributedDataParallel) else model
        return bare

    def to_device(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch on the student's device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def plan(self, batch: Batch) -> BatchPlan:
        """The plan of a micro-batch, on the CPU.

        Args:
            batch: on the CPU.

        Raises:
            DataError: a batch that cannot be right; the message names its rows.
        """
        head = self.bare.student.lm_head.weight
        dtype = torch.float64 if head.dtype == torch.float64 else torch.float32
        width = right_padded_width(batch["attention_mask"])
        return self._named(
            batch, lambda: self.objective.plan(batch, vocab_size=len(head), width=width, dtype=dtype)
        )

    def loss(
        self,
        model: nn.Module,
        batch: Batch,
        plan: BatchPlan,
        step: StepWeights,
        *,
        want_best: bool = False,
    ) -> PendingLoss:
        """The losses of one micro-batch; nothing in it waits for the device.

        Args:
            model: the model, or its bare module.
            batch: on the CPU.
            plan: the batch's plan, on the CPU.
            step: weights, counts and states of the step.
            want_best: also give the student's likeliest ids.
        """
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()
        with autocast:
            loss: PendingLoss = model(self.to_device(batch), plan.to(self.device), step, want_best)
        return loss

    def read(self, loss: PendingLoss, batch: Batch) -> CombinedLoss:
        """The numbers of one micro-batch.

        Raises:
            DataError: a batch that cannot be right; the message names its rows.
            DivergedError: a term is not finite; the message names it and the rows.
        """
        return self._named(batch, loss.read)

    def step(
        self, batches: Sequence[Batch], number: int, states: Mapping[str, State] | None = None
    ) -> StepReport:
        """Forward and backward of this rank's micro-batches of one optimiser step; gradients are left in place.

        Args:
            batches: on the CPU.
            number: number of the step, 0-based: it decides the weights.
            states: what the terms remember of earlier steps; None = this is the first step.

        Raises:
            DataError: a batch of this rank cannot be right.
            DivergedError: a term is not finite, on this rank or another one.
            KdfastError: a batch of another rank cannot be right.
        """
        objective = self.objective
        states = objective.states() if states is None else states
        weights = objective.weights(number)
        plans: list[BatchPlan] = []
        with self.together():
            plans.extend(self.plan(batch) for batch in batches)
        counts = self.ranks.sum({name: sum(plan.counts[name] for plan in plans) for name in weights})
        step = StepWeights(weights, counts, states)
        pending = []
        for index, (batch, plan) in enumerate(zip(batches, plans, strict=True), 1):
            hold = isinstance(self.model, DistributedDataParallel) and index < len(batches)
            with self.model.no_sync() if hold else nullcontext():  # type: ignore[operator]
                loss = self.loss(self.model, batch, plan, step)
                # DDP averages the ranks' gradients, but the loss is their sum
                (loss.total * self.ranks.world).backward()  # type: ignore[no-untyped-call]
            pending.append(loss.detached())
        sums = _Sums(dict.fromkeys((*weights, "skipped_rows", "tokens"), 0.0))
        with self.together():
            for loss, batch in zip(pending, batches, strict=True):
                sums.add_loss(self.read(loss, batch))
                sums.add("tokens", float(batch["attention_mask"].sum()))
        return self._report(sums, step)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong inside on one rank is raised on all: else the others would wait for it for ever.

        Raises:
            KdfastError: the error of this rank; on a rank without one, a `DivergedError` if the others only diverged.
        """
        error: KdfastError | None = None
        try:
            yield
        except KdfastError as caught:
            error = caught
        diverged = isinstance(error, DivergedError)
        found = self.ranks.sum({"failed": float(error is not None), "diverged": float(diverged)})
        if not found["failed"]:
            return
        if found["failed"] == found["diverged"]:
            raise error or DivergedError("training diverged on another rank, whose message names the rows")
        if error is None or diverged:
            raise KdfastError("another rank failed, and its message says why") from error
        raise error

    def _report(self, sums: _Sums, step: StepWeights) -> StepReport:
        total = self.ranks.sum(sums.sums)
        values = means(total, step.counts)
        report = {"loss": sum(step.weights[name] * value for name, value in values.items()), **values}
        for name in [key.removeprefix("count ") for key in total if key.startswith("count ")]:
            if total[f"count {name}"]:
                report[name] = total[f"sum {name}"] / total[f"count {name}"]
        for name, own in sums.medians.items():
            if everywhere := self.ranks.gather(own):
                report[name] = statistics.median(everywhere)
        report |= {name: value for name, value in total.items() if name.startswith("left_out.") and value}
        if total["skipped_rows"]:
            report["skipped_rows"] = total["skipped_rows"]
        observed: dict[str, dict[str, float]] = {}
        for key, value in total.items():
            if key.startswith("observed "):
                _, entry, name = key.split(" ")
                observed.setdefault(entry, {})[name] = value
        states = self.objective.next_states(step.states, observed)
        return StepReport(report | {"tokens": total["tokens"]}, states)

    @staticmethod
    def _named(batch: Batch, work: Callable[[], T]) -> T:
        """Adds the micro-batch's rows to what goes wrong in some work on it."""
        try:
            return work()
        except DataError as error:
            raise DataError(f"{error}; the micro-batch held dataset rows {_rows(batch)}") from error
        except FloatingPointError as error:
            raise DivergedError(
                f"training diverged: {error}; go back to a checkpoint or lower optimizer.learning_rate, or leave such "
                f"rows out with kd.on_nan: skip_row; the micro-batch held dataset rows {_rows(batch)}"
            ) from error


def _rows(batch: Batch) -> list[int]:
    return sorted(set(batch["row"].tolist()))


def means(sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    """Each term's mean; a term without positions has none.

    Examples:
        >>> means({"kl": 3.0, "ce_truth": 0.0}, {"kl": 6.0, "ce_truth": 0.0})
        {'kl': 0.5}
    """
    return {name: sums[name] / count for name, count in counts.items() if count > 0}
