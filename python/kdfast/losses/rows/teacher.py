"""A teacher's next-token distributions: k ids and the mass of all others, or every id's logit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdfast.errors import DataError
from kdfast.losses.rows.numerics import name_rows

MASS_TOLERANCE = 5e-3
"""How far the stored masses of a row may be from 1 (fp16 storage) before a warning."""


@dataclass(frozen=True)
class SparseTeacher:
    """The k likeliest ids of N rows with their log-probabilities, and the log of the mass outside them.

    Attributes:
        ids: [N,K] integers. An id of the student's vocabulary size or more is dropped and the teacher
            renormalised; of a repeated id the first entry counts.
        logp: [N,K] log-probabilities; an entry of -inf is ignored. A row without any entry has divergence 0.
        tail_logp: [N], as stored (1 - the sum of fp16 masses is wrong).
        logprob_temperature: the temperature that they were computed at.

    Example:
        >>> SparseTeacher(torch.tensor([[7]]), torch.tensor([[-0.5]]), torch.tensor([-0.93])).rows
        1
    """

    ids: Tensor
    logp: Tensor
    tail_logp: Tensor
    logprob_temperature: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for shapes that do not match."""
        if self.ids.shape != self.logp.shape or self.ids.dim() != 2 or not self.ids.shape[1]:
            raise ValueError(
                "topk_ids and topk_logp must both be [N,K] with K >= 1: "
                f"{list(self.ids.shape)}, {list(self.logp.shape)}"
            )
        if self.tail_logp.shape != self.ids.shape[:1]:
            raise ValueError(f"tail_logp must be [N] for {len(self.ids)} rows: {list(self.tail_logp.shape)}")

    @property
    def rows(self) -> int:
        """N."""
        return len(self.ids)

    def take(self, rows: Tensor | slice) -> SparseTeacher:
        """The teacher of some rows."""
        return SparseTeacher(self.ids[rows], self.logp[rows], self.tail_logp[rows], self.logprob_temperature)


@dataclass(frozen=True)
class DenseTeacher:
    """Every id's logit, at the temperature of 1.

    Attributes:
        logits: [N,Vt]. Ids of the student's vocabulary size or more are dropped and the teacher renormalised.

    Example:
        >>> DenseTeacher(torch.zeros(3, 8)).rows
        3
    """

    logits: Tensor

    def __post_init__(self) -> None:
        """Raises ValueError unless there is a row of logits for each position."""
        if self.logits.dim() != 2:
            raise ValueError(f"teacher logits must be [N,Vt]: {list(self.logits.shape)}")

    @property
    def rows(self) -> int:
        """N."""
        return len(self.logits)

    def take(self, rows: Tensor | slice) -> DenseTeacher:
        """The teacher of some rows."""
        return DenseTeacher(self.logits[rows])

    def fill(self, buffer: Tensor) -> Tensor:
        """All rows' logits in the first rows of a buffer [M,Vt], M >= N; gives these rows."""
        return buffer[: self.rows].copy_(self.logits.detach())

    @property
    def vocab(self) -> int:
        """Vt."""
        return self.logits.shape[1]


@dataclass(frozen=True)
class DenseHead:
    """A dense teacher as hidden states and output layer: its logits are made a chunk of rows at a time.

    That product runs in the teacher's own dtype, also under autocast.

    Attributes:
        hidden: [N,Dt] last hidden states.
        weight: [Vt,Dt] of its output layer.

    Example:
        >>> DenseHead(torch.zeros(3, 2), torch.zeros(8, 2)).fill(torch.empty(4, 8)).shape
        torch.Size([3, 8])
    """

    hidden: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        """Raises ValueError for shapes that do not match."""
        if self.hidden.dim() != 2 or self.weight.dim() != 2 or self.hidden.shape[1] != self.weight.shape[1]:
            raise ValueError(
                "the teacher's hidden must be [N,Dt] and its weight [Vt,Dt]: "
                f"{list(self.hidden.shape)}, {list(self.weight.shape)}"
            )

    @property
    def rows(self) -> int:
        """N."""
        return len(self.hidden)

    def take(self, rows: Tensor | slice) -> DenseHead:
        """The teacher of some rows."""
        return DenseHead(self.hidden[rows], self.weight)

    def fill(self, buffer: Tensor) -> Tensor:
        """All rows' logits in the first rows of a buffer [M,Vt], M >= N; gives these rows."""
        out, hidden, weight = buffer[: self.rows], self.hidden.detach(), self.weight.detach()
        with torch.autocast(hidden.device.type, enabled=False), torch.no_grad():
            if hidden.dtype == weight.dtype == out.dtype:
                return torch.mm(hidden, weight.T, out=out)
            return out.copy_(hidden @ weight.T)

    @property
    def vocab(self) -> int:
        """Vt."""
        return len(self.weight)

    def best(self, chunk_rows: int) -> Tensor:
        """The likeliest id of each row [N] int64.

        Example:
            >>> DenseHead(torch.eye(2), torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0]])).best(chunk_rows=1)
            tensor([1, 0])
        """
        buffer = self.hidden.new_empty(min(chunk_rows, self.rows), self.vocab)
        starts = range(0, self.rows, chunk_rows)
        parts = [self.take(slice(start, start + chunk_rows)).fill(buffer).argmax(1) for start in starts]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=self.hidden.device)


@dataclass(frozen=True)
class TeacherOutput:
    """What the forward pass of a model beside the student gave; none of it is on a graph.

    Attributes:
        hidden: [B,T',Dt] last hidden states.
        head: [Vt,Dt] weight of its output layer, in the dtype of `hidden`.
        layers: layer -> [B,T',Dt] further hidden states, where a term asks for them.

    Example:
        >>> TeacherOutput(torch.zeros(2, 3, 4), torch.zeros(8, 4)).at(torch.tensor([5])).hidden.shape
        torch.Size([1, 4])
    """

    hidden: Tensor
    head: Tensor
    layers: Mapping[int, Tensor] = field(default_factory=dict)

    def at(self, index: Tensor) -> DenseHead:
        """The teacher at places [N] in the flattened [B*T']."""
        return DenseHead(self.hidden.flatten(0, 1)[index], self.head)


Teacher = SparseTeacher | DenseTeacher | DenseHead


@dataclass(frozen=True)
class Classes:
    """A sparse teacher on the k+1 classes "each of the k ids" and "any other id".

    Attributes:
        logp: [N,K+1] log-probabilities, -inf at unused entries; the probabilities of a row add up to 1.
        ids: [N,K] int64, 0 at unused entries.
        usable: [N,K] bool, False at unused entries.
    """

    logp: Tensor
    ids: Tensor
    usable: Tensor

    def take(self, rows: slice) -> Classes:
        """The classes of some rows."""
        return Classes(self.logp[rows], self.ids[rows], self.usable[rows])


def sparse_classes(
    teacher: SparseTeacher, known: Tensor, vocab: int, dtype: torch.dtype, numbers: Tensor
) -> Classes:
    """The classes of a sparse teacher. A row that is not known is treated as a row without entries.

    Args:
        teacher: a teacher of N rows.
        known: [N] bool.
        vocab: the student's vocabulary size.
        dtype: dtype of the log-probabilities.
        numbers: [N] the rows' numbers, for messages.

    Raises:
        DataError: NaN or +inf among the log-probabilities of a known row, or a negative id (a ValueError).

    Example:
        >>> half = torch.tensor([[0.5, 0.25]]).log()
        >>> teacher = SparseTeacher(torch.tensor([[3, 9]]), half, torch.tensor([0.25]).log())
        >>> found = sparse_classes(teacher, torch.tensor([True]), 4, torch.float32, torch.tensor([0]))
        >>> found.usable.tolist(), [round(p, 3) for p in found.logp.exp()[0].tolist()]
        ([[True, False]], [0.667, 0.0, 0.333])
    """
    ids = teacher.ids.to(numbers.device).long()
    logp = teacher.logp.detach().to(ids.device, dtype).masked_fill(~known[:, None], -math.inf)
    tail = teacher.tail_logp.detach().to(ids.device, dtype).masked_fill(~known, 0.0)
    _check(ids, logp, tail, numbers)
    first = _first_entries(ids, logp)
    _warn_mass(first, logp, tail, numbers)
    usable = first & (ids < vocab)
    # where the k ids are the whole vocabulary there is no other id: no tail
    tail = tail.masked_fill(usable.sum(1) >= vocab, -math.inf)
    classes = torch.cat([logp.masked_fill(~usable, -math.inf), tail[:, None]], 1)
    empty = classes.amax(1) == -math.inf
    classes[:, -1].masked_fill_(empty, 0.0)
    return Classes(torch.log_softmax(classes, 1), ids.masked_fill(~usable, 0), usable)


def _check(ids: Tensor, logp: Tensor, tail: Tensor, rows: Tensor) -> None:
    broken = ~(logp < math.inf).all(1) | ~(tail < math.inf)
    if bool(broken.any()):
        raise DataError(f"teacher log-probabilities are NaN or +inf in row(s): {name_rows(broken, rows)}")
    negative = ((ids < 0) & (logp > -math.inf)).any(1)
    if bool(negative.any()):
        raise DataError(f"topk_ids must be >= 0, in row(s): {name_rows(negative, rows)}")


def _first_entries(ids: Tensor, logp: Tensor) -> Tensor:
    """[N,K] bool: entries that are not -inf and the first of their id in the row."""
    given = logp > -math.inf
    # Unused entries sort first, as id -1: else they would count as the first of their id and hide a used one.
    order = torch.where(given, ids, -1).sort(dim=1, stable=True)
    repeated = torch.zeros_like(given)
    repeated[:, 1:] = order.values[:, 1:] == order.values[:, :-1]
    return given & ~torch.zeros_like(given).scatter_(1, order.indices, repeated)


def _warn_mass(first: Tensor, logp: Tensor, tail: Tensor, rows: Tensor) -> None:
    mass = logp.exp().masked_fill(~first, 0.0).sum(1) + tail.exp()
    off = ((mass - 1.0).abs() > MASS_TOLERANCE) & (mass > 0)
    if bool(off.any()):
        warnings.warn(
            "the teacher's masses do not add up to 1 and are renormalised, "
            f"in row(s): {name_rows(off, rows)}",
            RuntimeWarning,
            stacklevel=2,
        )
