"""Hidden states, output layers, teachers and labels for the tests of linear_kd."""

from functools import partial

import pytest
import torch
from loss_forms import generator, top_k

from kdfast import losses
from kdfast.config import KDConfig
from kdfast.losses import (
    FORWARD_KL,
    DenseHead,
    DenseTeacher,
    RowTargets,
    SparseTeacher,
    cross_entropy,
    forward_kl,
    linear_kd,
)

N, D, V = 11, 7, 19
KD = KDConfig(jsd_beta=0.3, skew_alpha=0.2)
OPTIONS = {"generalized_jsd": {"beta": KD.jsd_beta}, "skew_kl": {"alpha": KD.skew_alpha}}
DIVERGENCES = {
    name: (row.make(KD), partial(row.function, **OPTIONS.get(name, {})))
    for name, row in losses.DIVERGENCES.items()
}
EVERY_DIVERGENCE = pytest.mark.parametrize("name", DIVERGENCES)
TEACHERS = pytest.mark.parametrize("kind", ["sparse", "dense", "head"])


def randn(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def model(dtype=torch.float64, n=N):
    """Hidden states and an output layer that require gradients."""
    return randn(n, D, seed=0, dtype=dtype).requires_grad_(), randn(
        V, D, seed=1, dtype=dtype
    ).requires_grad_()


def teacher(kind, temperature=1.0, n=N):
    """A teacher of this kind, and the same teacher in a form that the plain functions take."""
    hidden, weight = randn(n, 4, seed=2), randn(V + 3, 4, seed=3)  # a larger vocabulary
    if kind == "sparse":
        logits = hidden @ weight[:V].T / temperature
        found = SparseTeacher(*top_k(logits, 5).values(), temperature)
        return found, found
    plain = DenseTeacher(hidden @ weight.T)
    return (DenseHead(hidden, weight) if kind == "head" else plain), plain


def labels(n=N):
    """Three labels per row; some are absent, and one row has none. Also their coefficients."""
    ids = torch.randint(V, (n, 3), generator=generator(4))
    ids[1, 2], ids[n // 2] = -100, -100
    return ids, randn(n, 3, seed=5)


def coefficients(n=N):
    """Coefficients of all sizes and signs; 0 = the row has no teacher."""
    found = randn(n, seed=6) * torch.logspace(-5, 3, n, dtype=torch.float64)
    found[2] = 0.0
    return found


def plain_total(logits, function, given, temperature, kl_coefficients, ids, label_coefficients):
    """The total of `linear_kd`, computed with the plain functions, one row and one label at a time."""
    total = logits.sum() * 0.0
    for n in range(len(logits)):
        row = slice(n, n + 1)
        if kl_coefficients[n]:
            total = (
                total
                + kl_coefficients[n] * function(logits[row], given.take(row), temperature=temperature).total
            )
        for j in range(ids.shape[1]):
            total = total + label_coefficients[n, j] * cross_entropy(logits[row], ids[row, j]).total
    return total


def simple_targets(n=N, dtype=torch.float64):
    return RowTargets(
        labels=torch.arange(n)[:, None] % V,
        label_coefficients=torch.full((n, 1), 0.5 / n, dtype=dtype),
        teacher=teacher("sparse", n=n)[0],
        divergence=FORWARD_KL,
        kl_coefficients=torch.full((n,), 0.5 / n, dtype=dtype),
    )


class Tied(torch.nn.Module):
    """An embedding, a body and an output layer, whose weight may be that of the embedding."""

    def __init__(self, *, tied):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, D)
        self.body = torch.nn.Linear(D, D)
        self.head = torch.nn.Linear(D, V, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids, targets, fused=True, chunk_rows=3):
        hidden = self.body(self.embedding(ids))
        if fused:
            return linear_kd(hidden, self.head.weight, targets, chunk_rows=chunk_rows).total
        logits = self.head(hidden)
        kl = forward_kl(logits, targets.teacher).total * targets.kl_coefficients[0]
        return kl + cross_entropy(logits, targets.labels[:, 0]).total * targets.label_coefficients[0, 0]


def assert_same_gradients(one, other, **tolerance):
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name, **tolerance)
