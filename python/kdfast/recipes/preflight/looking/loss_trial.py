"""The losses of a few rows of the sample, one term at a time, as the trainer computes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdfast.distributed.ranks import Ranks
from kdfast.errors import DataError, DivergedError
from kdfast.losses import (
    LossSettings,
    PendingLoss,
    State,
    StepWeights,
    StudentOutput,
    TeacherOutput,
)
from kdfast.quantized import effective_weight
from kdfast.recipes.preflight.looking.loss_places import PLACES, Batch, supervised
from kdfast.recipes.train.live_teacher import FrozenTeacher
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.student import hidden_states, right_padded_width

_CHUNK = 64
"""Positions whose logits exist at once in float64."""
_ROWS = 2
"""Rows on which a term is looked at; one more, on which it must not act, joins them."""


def runner_of(
    student: nn.Module, objective: Objective, live_teacher: FrozenTeacher | nn.Module | None
) -> Runner:
    """The student with its loss, as the trainer runs both; parameters of terms start the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = StudentLoss(student, objective, live_teacher)
    return Runner(model, objective, torch.device("cpu"), autocast=False, ranks=Ranks())


def open_states(objective: Objective) -> dict[str, State]:
    """What the terms remember once the student's answers are too long: the hinge of the length loss is open then."""
    states = objective.states()
    return states | {"length": {"average": 1.0}} if "length" in states else states


def rows_of(batch: Batch, rows: Sequence[int]) -> dict[str, Tensor]:
    """Some rows of a batch, without the columns that are padding in all of them.

    Example:
        >>> one = {"attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]]), "row": torch.tensor([7, 8])}
        >>> found = rows_of(one, [1])
        >>> found["attention_mask"].tolist(), found["row"].tolist()
        ([[1]], [8])
    """
    rows, length = list(rows), batch["attention_mask"].shape[1]
    width = right_padded_width(batch["attention_mask"][rows])
    return {
        name: value[rows][:, :width]
        if value.dim() > 1 and value.shape[1] == length and name != "teacher_prefix_ids"
        else value[rows]
        for name, value in batch.items()
    }


def labels_in(batch: Batch) -> int:
    """The positions of a batch that are learned: what a loss on it costs in time."""
    return int(supervised(batch).sum())


def strange_ids(student: nn.Module, batches: Sequence[Batch]) -> str:
    """Ids that the student does not have, in words; "" = there are none."""
    vocab = len(student.lm_head.weight)  # type: ignore[arg-type, union-attr]
    largest = max(int(batch["input_ids"].max()) for batch in batches)
    return f"the rows hold the id {largest}, the student has {vocab:,} ids" if largest >= vocab else ""


_NOT_FINITE = "a loss is not finite: see losses.terms_are_finite"


@dataclass(frozen=True)
class FirstLook:
    """Whether the losses of the sample can be looked at.

    Attributes:
        trouble: why not; other checks say what is wrong then. "" = they can.
        counts: of each batch, what each enabled term counts.
    """

    trouble: str
    counts: tuple[Mapping[str, float], ...] = ()


def first_look(runner: Runner, batches: Sequence[Batch]) -> FirstLook:
    """Plans all batches, and computes the losses of the cheapest.

    Args:
        runner: the student with its loss.
        batches: micro-batches of the sample.
    """
    if not batches:
        return FirstLook("the sample gives no batch")
    strange = strange_ids(runner.bare.student, batches)
    if strange:
        return FirstLook(strange)
    try:
        plans = [runner.plan(batch) for batch in batches]
    except ValueError as error:
        return FirstLook(f"the losses refuse a batch: {error}")
    number = min(range(len(batches)), key=lambda index: labels_in(batches[index]))
    batch, plan = batches[number], plans[number]
    step = StepWeights(dict.fromkeys(plan.counts, 1.0), plan.counts, open_states(runner.objective))
    try:
        with torch.no_grad():
            found = runner.read(runner.loss(runner.bare, batch, plan, step), batch)
    except (DataError, DivergedError):
        return FirstLook(_NOT_FINITE)
    if any(term.skipped for term in found.terms.values()):
        return FirstLook(_NOT_FINITE)
    return FirstLook("", tuple(plan.counts for plan in plans))


class Forward:
    """The forward passes on a few rows.

    Attributes:
        batch: the rows, of T' columns.
        plan: their plan.
        head: [V,D] the student's output layer.
        teacher: what the live teacher gave.
        hidden: [B,T',D] the student's last hidden states; a leaf of the graph.
        layers: layer -> [B,T',D] those that terms compare; leaves, too.
    """

    def __init__(self, runner: Runner, batch: Batch) -> None:
        self.batch, self.plan = batch, runner.plan(batch)
        model, layers, ids = runner.bare, runner.objective.layers, batch["input_ids"]
        live = model.teacher if self.plan.needs("live") else None
        with torch.no_grad():
            hidden, chosen = hidden_states(model.student, ids, layers.student)
            self.head = effective_weight(model.student.lm_head).detach()
            self.teacher = None if live is None else live.output(ids, layers.teacher)
        self.hidden = hidden.detach().requires_grad_()
        self.layers = {layer: value.detach().clone().requires_grad_() for layer, value in chosen.items()}


class Trial:
    """A few rows, the student's forward pass on them, and the loss of one term.

    Attributes:
        term: the term.
        batch: the rows, of T' columns.
        plan: their plan.
        settings: the losses' settings.
        hidden: [B,T',D] last hidden states of the student.
        hidden_layers: layer -> [B,T',D] those that terms compare.
        teacher: what the live teacher gave.
        projectors: what maps the student's width to the teacher's, a layer each.
    """

    def __init__(self, runner: Runner, forward: Forward, term: str) -> None:
        self.term, self.batch, self.plan = term, forward.batch, forward.plan
        self._objective, self._head = runner.objective, forward.head
        self.settings: LossSettings = runner.objective.settings
        self.hidden, self.hidden_layers = forward.hidden, forward.layers
        self.teacher: TeacherOutput | None = forward.teacher
        self._modules: Mapping[str, nn.Module] = dict(runner.bare.terms.items())
        self.projectors = self._modules.get("hidden_state")

    @property
    def where(self) -> Tensor:
        """[B,T'] bool, where the term may act."""
        return PLACES[self.term].where(self.batch, self.settings)

    def loss(self) -> PendingLoss:
        """The loss with this term alone, of weight 1."""
        counts = self.plan.counts
        weights = {name: float(name == self.term) for name in counts}
        output = StudentOutput(self.hidden, self._head, self.hidden_layers, teacher=self.teacher)
        step = StepWeights(weights, counts, open_states(self._objective))
        return self._objective.loss(output, self.plan, step, self._modules)

    def gradient(self) -> Tensor | None:
        """[B,T'] bool, the positions whose hidden states get a gradient; None = the loss is on no graph."""
        total, leaves = self.loss().total, [self.hidden, *self.hidden_layers.values()]
        if not total.requires_grad:
            return None
        found = torch.autograd.grad(total, leaves, allow_unused=True)
        reached = torch.zeros(self.hidden.shape[:2], dtype=torch.bool)
        for one in found:
            if one is not None:
                reached |= (one != 0).any(-1)
        return reached

    def expected(self) -> float:
        """The term's sum over the rows, by the reference."""
        return PLACES[self.term].cost(self, self.where)

    def logits(self, where: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """(row, column, [V] float64 logits) at the places of a mask [B,T']."""
        head = self._head.double()
        places = where.nonzero().tolist()
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            picked = torch.stack([self.hidden.detach()[row, column] for row, column in some])
            for (row, column), logits in zip(some, picked.double() @ head.T, strict=True):
                yield row, column, logits

    def teacher_logits(self, row: int, column: int) -> Tensor:
        """[Vt] float64 logits of the live teacher, which were made in its own dtype."""
        if self.teacher is None:
            raise ValueError("there is no live teacher")
        index = torch.tensor([row * self.hidden.shape[1] + column])
        rows = self.teacher.at(index)
        return rows.fill(torch.empty(1, rows.vocab))[0].double()


@dataclass(frozen=True)
class Trials:
    """The enabled terms, each on the rows of the sample that cost least.

    Attributes:
        runner: the student with its loss.
        batches: micro-batches of the sample.
    """

    runner: Runner
    batches: Sequence[Batch]
    _forwards: dict[tuple[int, tuple[int, ...]], Forward] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        learner: Callable[[], nn.Module],
        objective: Objective,
        batches: Sequence[Batch],
        live_teacher: FrozenTeacher | nn.Module | None,
    ) -> Trials:
        """The trials of a student that is built afresh."""
        return cls(runner_of(learner(), objective, live_teacher), batches)

    @functools.cached_property
    def looked(self) -> FirstLook:
        """Whether there is anything to look at."""
        return first_look(self.runner, self.batches)

    @property
    def terms(self) -> list[str]:
        """The enabled terms that have places; `self_kl` has none, since it begins with quantisation."""
        return [name for name in self.runner.objective.final_weights if name in PLACES]

    def trial(self, term: str) -> Trial | None:
        """One term on a few rows; None = no row of the sample has what it acts on."""
        found = [self._few(term, batch) for batch in self.batches]
        costs = [
            (-acting, labels_in(rows_of(self.batches[number], rows)), number)
            for number, (acting, rows) in enumerate(found)
            if acting
        ]
        if not costs:
            return None
        number = min(costs)[2]
        return Trial(self.runner, self._forward(number, tuple(found[number][1])), term)

    def _forward(self, number: int, rows: tuple[int, ...]) -> Forward:
        """The forward passes on some rows of a batch; terms on the same rows share them."""
        if (number, rows) not in self._forwards:
            self._forwards[number, rows] = Forward(self.runner, rows_of(self.batches[number], rows))
        return self._forwards[number, rows]

    def _few(self, term: str, batch: Batch) -> tuple[int, list[int]]:
        """The cheapest rows on which a term acts, and one on which it does not: (how many act, all of them)."""
        counts = PLACES[term].where(batch, self.runner.objective.settings).sum(1).tolist()
        acting = sorted((row for row, count in enumerate(counts) if count), key=lambda row: counts[row])
        others = [row for row, count in enumerate(counts) if not count]
        return len(acting[:_ROWS]), sorted(acting[:_ROWS] + others[:1])
