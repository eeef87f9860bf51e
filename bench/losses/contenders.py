"""kdfast, the bare matrix products, and the formulas written in plain torch: what needs no other package."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from bench.losses.cases import Inputs
from torch import Tensor

KDFAST, FLOOR, CAREFUL = "kdfast", "matrix products", "plain torch, rows picked"
CHUNK = 256
Loss = Callable[[Inputs], Tensor]
"""Runs forward and backward, leaves gradients at hidden and weight, gives the value: mean KL / 2 + mean CE / 2."""


class AbsentError(Exception):
    """This contender cannot run here; the message says why."""


@dataclass(frozen=True)
class Contender:
    """Something measured.

    Attributes:
        name: as results spell it.
        load: gives the loss to run for a kind of case; imports what it needs. Raises `AbsentError`.
        losses: the kinds of cases it has.
        package: the distribution whose version is reported.
        value: what it computes: "same"; "truncated" (no mass outside the top k); "no entropy" (the teacher's
            entropy is missing from the value, the gradient is the same); "" for none.
        peer: goals compare with it.
        rows: it picks the supervised rows; others go through the whole padded batch.
        whole_warm_up: its warm-up is a whole run (it compiles).
        about: one line.
    """

    name: str
    load: Callable[[str, Path | None], Loss]
    losses: tuple[str, ...] = ("sparse", "dense", "jsd")
    package: str = "torch"
    value: str = "same"
    peer: bool = True
    rows: bool = False
    whole_warm_up: bool = False
    about: str = ""


def _kdfast(kind: str, _: Path | None) -> Loss:
    try:
        from kdfast.losses import FORWARD_KL, DenseHead, RowTargets, SparseTeacher, jsd, linear_kd
    except ImportError as error:
        raise AbsentError(str(error)) from error
    divergence = jsd(0.5) if kind == "jsd" else FORWARD_KL

    def run(x: Inputs) -> Tensor:
        rows = x.mask.nonzero()[:, 0]
        coefficient = torch.full((len(rows),), 0.5 / x.count, device=rows.device)
        if kind == "sparse":
            teacher = SparseTeacher(x.ids[rows], x.logp[rows], x.tail[rows])
        else:
            teacher = DenseHead(x.teacher_hidden[rows], x.teacher_weight)
        targets = RowTargets(
            labels=x.labels[rows, None],
            label_coefficients=coefficient[:, None],
            teacher=teacher,
            divergence=divergence,
            kl_coefficients=coefficient,
        )
        total = linear_kd(x.hidden[rows], x.weight, targets, chunk_rows=CHUNK).total
        total.backward()
        return total.detach()

    return run


def _products(kind: str, _: Path | None) -> Loss:
    """Logits, gradient of hidden, gradient of weight, (and a dense teacher's), a chunk at a time; nothing between."""

    def run(x: Inputs) -> Tensor:
        rows = x.mask.nonzero()[:, 0]
        weight, hidden = x.weight.detach(), x.hidden.detach()[rows]
        buffer = hidden.new_empty(min(CHUNK, len(rows)), len(weight))
        teacher = torch.empty_like(buffer) if kind != "sparse" else buffer
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for start in range(0, len(rows), CHUNK):
            part = hidden[start : start + CHUNK]
            logits = buffer[: len(part)]
            if kind != "sparse":
                torch.mm(
                    x.teacher_hidden[rows[start : start + CHUNK]],
                    x.teacher_weight.T,
                    out=teacher[: len(part)],
                )
            torch.mm(part, weight.T, out=logits)
            torch.mm(logits, weight, out=grad_hidden[start : start + CHUNK])
            grad_weight.addmm_(logits.T, part)
        return grad_weight[0, 0]

    return run


def bucket_kl(logq: Tensor, x_logp: Tensor, x_tail: Tensor, ids: Tensor) -> Tensor:
    """[M] KL over the k ids and the mass of all others, as plain torch says it; logq [M,V]."""
    top = logq.gather(1, ids)
    rest = torch.log1p(-top.exp().sum(1)).unsqueeze(1)
    student, teacher = torch.cat([top, rest], 1), torch.cat([x_logp, x_tail[:, None]], 1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


def dense_divergence(kind: str, logq: Tensor, logp: Tensor) -> Tensor:
    """[M] KL(p||q), or JSD with beta = 0.5, from log-probabilities [M,V]."""
    if kind == "dense":
        return F.kl_div(logq, logp, reduction="none", log_target=True).sum(1)
    mixture = torch.logaddexp(logq, logp) - math.log(2)
    halves = [F.kl_div(mixture, side, reduction="none", log_target=True).sum(1) for side in (logp, logq)]
    return 0.5 * (halves[0] + halves[1])


def _plain(kind: str, *, careful: bool) -> Loss:
    def run(x: Inputs) -> Tensor:
        rows = x.mask.nonzero()[:, 0] if careful else slice(None)
        logits = F.linear(x.hidden[rows], x.weight)
        logq = torch.log_softmax(logits, 1)
        labels = x.labels[rows]
        entropy = F.nll_loss(logq, labels) if careful else F.cross_entropy(logits, labels)
        del logits
        if kind == "sparse":
            divergence = bucket_kl(logq, x.logp[rows], x.tail[rows], x.ids[rows])
        else:
            with torch.no_grad():
                logp = torch.log_softmax(F.linear(x.teacher_hidden[rows], x.teacher_weight), 1)
            divergence = dense_divergence(kind, logq, logp)
        loss = 0.5 * (divergence * x.mask[rows]).sum() / x.count + 0.5 * entropy
        loss.backward()
        return loss.detach()

    return run


OWN = (
    Contender(
        KDFAST, _kdfast, package="kdfast", peer=False, rows=True, about=f"linear_kd, chunks of {CHUNK} rows"
    ),
    Contender(
        FLOOR,
        _products,
        value="",
        peer=False,
        rows=True,
        about="nothing but the matrix products that kdfast needs, in the same chunks",
    ),
    Contender(
        "naive",
        lambda kind, _: _plain(kind, careful=False),
        about="as tutorials write it: F.cross_entropy, log_softmax and F.kl_div on the whole batch, then the mask",
    ),
    Contender(
        CAREFUL,
        lambda kind, _: _plain(kind, careful=True),
        peer=False,
        rows=True,
        about="the same formulas on the supervised rows alone, with one log_softmax for both terms: "
        "the best that plain torch does without chunks",
    ),
)
