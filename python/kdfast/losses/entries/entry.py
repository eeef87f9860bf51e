"""What an entry is: everything that the training loss knows about one term, or one family of terms, in one class.

A batch goes through an entry in two steps. `Entry.plan` looks at the batch on the CPU, before any forward: it
counts, and it says which labels, which teacher and which positions the term needs. The plan then moves to the device
with the batch. `Entry.loss` uses it there. A term that only teaches labels or a divergence at single positions has no
`loss` of its own: one pass over all rows (`linear_kd`) does it for all such terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdfast.config.kd import KDConfig
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.latency.log_odds import log_odds_of_rows
from kdfast.losses.rows.kernel import Divergence
from kdfast.losses.rows.teacher import Teacher, TeacherOutput

Batch = Mapping[str, Tensor]
State = Mapping[str, Any]
"""What a term remembers from step to step: names and JSON values. It is saved with each checkpoint."""


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """What one training row offers; `TermSpec.present` asks it.

    Attributes:
        source: who wrote the answer, "teacher" or "truth".
        ended: the answer ends with the end of its turn; it was not cut.
        should_call: a tool call is due.
        has_prefix: the first tokens of the teacher's call are known.
        taught: the teacher's distribution is in the store.
        drawn: ids drawn from the teacher are in the store.
        live_teacher: a teacher runs beside the student.
    """

    source: str
    ended: bool
    should_call: bool
    has_prefix: bool
    taught: bool
    drawn: bool
    live_teacher: bool = False


@dataclass(frozen=True, kw_only=True)
class TermSpec:
    """One term as users see it.

    Attributes:
        name: its name in metrics.
        weight: the key of its weight in the config's section `kd`: the name and `_weight`.
        field: what data must carry for it, in words.
        remedy: how data come to carry that.
        present: whether a training row carries it.
        final_weight: the key of its weight at the last step, if it has one.
        ramped: its weight grows from 0 over the early-tool warm-up.
        live: it needs a teacher beside the student, and nothing of the data.
    """

    name: str
    weight: str
    field: str
    remedy: str
    present: Callable[[RowFacts], bool]
    final_weight: str | None = None
    ramped: bool = False
    live: bool = False

    @property
    def title(self) -> str:
        """Its name in words, as the report shows it; the config says it beside the weight."""
        return KDConfig.key(self.weight).title


@dataclass(frozen=True, kw_only=True)
class Positions:
    """The N supervised positions of a batch, in row-major order, and how to look up fields there.

    Attributes:
        mask: [B,T'] bool, T' the longest row's tokens.
        index: [N] int64, places in the flattened [B*T'].
        rows: [N] int64, the batch's row of each.
        numbers: [N] int64, the dataset's row of each.
        vocab: V of the student.
        dtype: dtype of the maths.
    """

    mask: Tensor
    index: Tensor
    rows: Tensor
    numbers: Tensor
    vocab: int
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """T'."""
        return self.mask.shape[1]

    def at(self, values: Tensor) -> Tensor:
        """Values [B,T,...] at the positions: [N,...]."""
        return values[:, : self.width].flatten(0, 1)[self.index]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Columns of labels that rows are to learn.

    Attributes:
        ids: [N,J] int64, -100 = none.
        weights: [N,J], what each label's -log q is multiplied by.
        members: term -> [N] bool, the rows that count for it. A row counts for one term at most.
    """

    ids: Tensor
    weights: Tensor
    members: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A divergence from a teacher that rows are to learn.

    Attributes:
        term: name of the term.
        teacher: the teacher of all N rows; None = a teacher beside the student, whose forward pass is yet to come.
        known: [N] bool, rows whose distribution is known.
        divergence: which divergence.
        temperature: its temperature.
    """

    term: str
    teacher: Teacher | None
    known: Tensor
    divergence: Divergence
    temperature: float


@dataclass(frozen=True, kw_only=True)
class EntryPlan:
    """An entry's plan for a batch.

    Attributes:
        counts: each of its enabled terms -> how much it counts, from masks alone.
        labels: labels to learn at supervised positions.
        taught: a divergence to learn there.
        detail: whatever `Entry.loss` needs; tensors in it (also in dataclasses, lists and mappings) move to the device.
        diagnostics: name -> (sum, count) that are logged as a mean, known from masks alone.
        left_out: reason -> rows that the term cannot use.
        teacher: the model beside the student that it needs: the live teacher, or the student's own earlier state.
    """

    counts: Mapping[str, float]
    labels: Labels | None = None
    taught: Taught | None = None
    detail: Any = None
    diagnostics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    teacher: Literal["live", "self"] | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """What a term that is no loss of rows may look at.

    Attributes:
        rows: [N,D] the student's last hidden states at the supervised positions.
        head: [V,D] weight of its output layer.
        chunk_rows: rows of logits that may exist at once.
        last: [B,T',D] the student's last hidden states.
        hidden: layer -> [B,T',D] further ones; only the layers that an entry asked for.
        teacher: what a live teacher gave; None where none runs.
        self_teacher: what the student's own earlier state gave; None where none runs.
        module: the entry's own parameters, if it has any.
    """

    rows: Tensor
    head: Tensor
    chunk_rows: int
    last: Tensor
    hidden: Mapping[int, Tensor] = field(default_factory=dict)
    teacher: TeacherOutput | None = None
    self_teacher: TeacherOutput | None = None
    module: nn.Module | None = None

    def log_odds(self, at: Tensor, ids: Tensor) -> Tensor:
        """Log-odds of a set of ids against all others: [M], at places `at` [M] among the N rows."""
        return log_odds_of_rows(self.rows[at], self.head, ids, self.chunk_rows)


@dataclass(frozen=True, kw_only=True)
class RowValues:
    """One term of a micro-batch, before anybody has waited for the device.

    Attributes:
        total: scalar; on the graph where the term is no loss of rows.
        count: what it counts, from the plan.
        bad: [M] bool, rows whose value was not finite; each costs 0 and has no gradient.
        numbers: [M] int64, the dataset's row of each.
        what: the tensor at fault, for the message.
        bad_teacher: [M] bool, NaN or +inf among a dense teacher's logits; None = there is no such teacher.
    """

    total: Tensor
    count: float
    bad: Tensor
    numbers: Tensor
    what: str
    bad_teacher: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What `Entry.loss` gives. All tensors stay on the device.

    Attributes:
        terms: name -> its values.
        diagnostics: name -> (sum, count) that are logged as a mean; scalars.
        medians: name -> ([R] values, [R] bool which of them count) that are logged as a median.
        observed: name -> scalar that `Entry.next_state` gets, summed over micro-batches and ranks.
    """

    terms: Mapping[str, RowValues] = field(default_factory=dict)
    diagnostics: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    medians: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    observed: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Layers whose hidden states an entry compares: 0 is the embeddings, i the output of block i, -1 the last norm's.

    Attributes:
        student: layers of the student.
        teacher: layers of the live teacher, one for each of the student's.
    """

    student: tuple[int, ...] = ()
    teacher: tuple[int, ...] = ()


class Entry:
    """One term, or terms that share a plan. A subclass says what differs from "a loss of rows without state"."""

    name: str
    specs: tuple[TermSpec, ...]

    def enabled(self, settings: LossSettings) -> tuple[str, ...]:
        """Names of its terms whose weight is above 0."""
        return tuple(spec.name for spec in self.specs if getattr(settings.kd, spec.weight) > 0)

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """Plans a batch on the CPU.

        Args:
            batch: the batch contract.
            positions: where the batch is supervised.
            settings: settings of the loss.
            enabled: those of its terms that are switched on, at least one.

        Raises:
            DataError: labels or teacher numbers that cannot be right.
            ValueError: the batch lacks a field.
        """
        raise NotImplementedError

    def loss(self, view: View, plan: EntryPlan, state: State | None, settings: LossSettings) -> Found:
        """The terms that are no losses of rows.

        It must not wait for the device: no `.item()`, no `nonzero`, no boolean index.

        Args:
            view: what it may look at.
            plan: its plan of this batch, on the device.
            state: what it remembers; None = outside training, where nothing is remembered.
            settings: settings of the loss.
        """
        del view, plan, state, settings
        return Found()

    def next_state(self, state: State | None, observed: Mapping[str, float], settings: LossSettings) -> State:
        """What it remembers after an optimiser step.

        Args:
            state: what it remembered before; None = this was the first step.
            observed: sums of `Found.observed` over the micro-batches and ranks of the step.
            settings: settings of the loss.
        """
        del observed, settings
        return state or {}

    def layers(self, kd: KDConfig) -> Layers:
        """The hidden states that it compares."""
        del kd
        return Layers()

    def module(self, kd: KDConfig, widths: tuple[int, int]) -> nn.Module | None:
        """Parameters that it learns beside the student, such as a projector; None = none.

        Args:
            kd: the config's section.
            widths: (student's, teacher's) hidden size.
        """
        del kd, widths
        return None
