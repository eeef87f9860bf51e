"""The losses in float64, a chunk at a time, on the supervised rows: what every contender is checked against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from bench.losses.cases import Case, Inputs, make_inputs
from bench.losses.contenders import CHUNK, bucket_kl, dense_divergence
from torch import Tensor

SAMPLED_ROWS = 256


@dataclass(frozen=True)
class Reference:
    """What is right.

    Attributes:
        values: of the loss by what a contender computes (see `Contender.value`).
        grad_hidden: [N,D] and
        grad_weight: rows of [V,D], of the loss that is meant.
    """

    values: dict[str, float]
    grad_hidden: np.ndarray
    grad_weight: np.ndarray


def sampled_ids(x: Inputs) -> Tensor:
    """Rows of the weight whose gradients are compared: half of them labels, half anything."""
    maker = torch.Generator().manual_seed(1)
    labels = x.labels[x.mask].cpu()
    chosen = labels[torch.randint(len(labels), (SAMPLED_ROWS // 2,), generator=maker)]
    return torch.cat([chosen, torch.randint(len(x.weight), (SAMPLED_ROWS // 2,), generator=maker)])


def reference(case: Case, threads: int) -> Reference:
    """The values and gradients of a case, in its own process (it takes time and memory)."""
    torch.set_num_threads(threads)
    x = make_inputs(case, "cpu")
    rows, weight = x.mask.nonzero()[:, 0], x.weight.detach().double()
    teacher_weight = x.teacher_weight.double()
    sums = dict.fromkeys(("kl", "ce", "truncated", "entropy"), 0.0)
    grad_hidden, grad_weight = torch.zeros(x.hidden.shape).double(), torch.zeros_like(weight)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        hidden = x.hidden.detach()[part].double()
        logits = (hidden @ weight.T).requires_grad_()
        logq = torch.log_softmax(logits, 1)
        if case.loss == "sparse":
            ids, logp = x.ids[part], x.logp[part].double()
            divergence = bucket_kl(logq, logp, x.tail[part].double(), ids)
            sums["truncated"] += float((logp.exp() * (logp - logq.detach().gather(1, ids))).sum())
        else:
            logp = torch.log_softmax(x.teacher_hidden[part].double() @ teacher_weight.T, 1)
            divergence = dense_divergence(case.loss, logq, logp)
            sums["entropy"] -= float((logp.exp() * logp).sum())
        ce = -logq.gather(1, x.labels[part, None]).sum()
        (divergence.sum() + ce).backward()
        sums["kl"] += float(divergence.sum().detach())
        sums["ce"] += float(ce.detach())
        grad_hidden[part] = logits.grad @ weight
        grad_weight += logits.grad.T @ hidden
    half = 0.5 / x.count
    values = {
        "same": half * (sums["kl"] + sums["ce"]),
        "truncated": half * (sums["truncated"] + sums["ce"]),
        "no entropy": half * (sums["kl"] + sums["entropy"] + sums["ce"]),
    }
    return Reference(values, (grad_hidden * half).numpy(), (grad_weight[sampled_ids(x)] * half).numpy())


def distance(found: np.ndarray, right: np.ndarray) -> float:
    """The norm of the difference over the norm of what is right."""
    return float(np.sqrt(np.square(found - right).sum() / np.square(right).sum()))
