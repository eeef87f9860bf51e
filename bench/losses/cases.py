"""What is measured: the cases, and the tensors that every contender is given."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

TOP_K = 32
LOSSES = {
    "sparse": f"sparse top-k forward KL (k = {TOP_K}, tail bucket) + CE",
    "dense": "dense forward KL + CE",
    "jsd": "dense JSD (beta = 0.5) + CE",
}


@dataclass(frozen=True)
class Case:
    """One size of one loss.

    Attributes:
        loss: a key of `LOSSES`.
        positions: N, of the padded batch.
        hidden: D, of the student and of a dense teacher.
        vocab: V.
        every: 1 = every position is supervised, 10 = every tenth. The last never is: nothing comes after it.
    """

    loss: str
    positions: int
    hidden: int
    vocab: int
    every: int

    @property
    def name(self) -> str:
        """As results spell it."""
        return f"{self.loss} N={self.positions} D={self.hidden} V={self.vocab} {100 // self.every} %"

    @property
    def supervised(self) -> int:
        """Rows that are supervised."""
        return len(range(0, self.positions - 1, self.every))


def matrix(losses: list[str], positions: list[int], hidden: list[int], vocab: list[int]) -> list[Case]:
    """Every combination, small ones first."""
    combinations = itertools.product(positions, vocab, hidden, (1, 10), losses)
    return [Case(loss, n, d, v, every) for n, v, d, every, loss in combinations]


@dataclass
class Inputs:
    """A padded batch at the output layer, everything label-aligned.

    Attributes:
        hidden: [N,D] leaf that wants its gradient.
        weight: [V,D] leaf that wants its gradient.
        labels: [N] int64, -100 where not supervised.
        ids: [N,K] int64 and
        logp: [N,K] of a sparse teacher, whose other mass is
        tail: [N]; or
        teacher_hidden: [N,D] and
        teacher_weight: [V,D] of a dense one.
        count: supervised rows.
    """

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    ids: Tensor
    logp: Tensor
    tail: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor
    count: int

    @property
    def mask(self) -> Tensor:
        """[N] bool, supervised."""
        return self.labels != -100


def make_inputs(case: Case, device: str) -> Inputs:
    """Seeded: the same for every contender. A dense teacher is the student with noise: their KL is about 1."""
    maker = torch.Generator().manual_seed(case.positions + case.hidden + case.vocab)
    n, d, v = case.positions, case.hidden, case.vocab
    # logits of standard deviation 2.5; uniform numbers are quicker to make, and their sums are normal all the same
    bound = 2.5 * (3 / d) ** 0.5
    hidden, weight = (
        torch.randn(n, d, generator=maker),
        torch.empty(v, d).uniform_(-bound, bound, generator=maker),
    )
    labels = torch.full((n,), -100)
    places = torch.arange(0, n - 1, case.every)
    first = torch.randint(v, (n,), generator=maker)
    labels[places] = first[places]
    ids, logp, tail = (torch.empty(0) for _ in range(3))
    teacher_hidden, teacher_weight = (torch.empty(0) for _ in range(2))
    if case.loss == "sparse":
        step = torch.randint(1, v // TOP_K, (n, 1), generator=maker)
        ids = (first[:, None] + step * torch.arange(TOP_K)) % v
        logits = torch.cat([-0.2 * torch.arange(TOP_K), torch.tensor([-0.7])]).repeat(n, 1)
        logits[:, :TOP_K] -= torch.rand(n, TOP_K, generator=maker)
        logp, tail = torch.log_softmax(logits, 1).split([TOP_K, 1], 1)
        logp, tail = logp.contiguous(), tail[:, 0].contiguous()
    else:
        teacher_hidden = hidden + 0.3 * torch.randn(n, d, generator=maker)
        teacher_weight = torch.empty(v, d).uniform_(-0.3 * bound, 0.3 * bound, generator=maker).add_(weight)
    return Inputs(
        hidden=hidden.to(device).requires_grad_(),
        weight=weight.to(device).requires_grad_(),
        labels=labels.to(device),
        ids=ids.to(device),
        logp=logp.to(device),
        tail=tail.to(device),
        teacher_hidden=teacher_hidden.to(device),
        teacher_weight=teacher_weight.to(device),
        count=len(places),
    )
