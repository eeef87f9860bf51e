"""Every loss of the table in every form, with random inputs, an oracle and a twin, for tests that all losses share."""

import math
from dataclasses import dataclass

import naive
import torch
import twins

from kdfast import losses
from kdfast.config import KDConfig
from kdfast.losses import LOSSES, DenseTeacher, Loss, RowTargets, SparseTeacher
from kdfast.losses.token.sampled_kl import sample_labels

DIVERGENCES = {name: row.make(KDConfig()) for name, row in losses.DIVERGENCES.items()}
Inputs = dict[str, torch.Tensor]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def teacher_logits(n, vocab, seed, scale=2.0):
    return torch.randn(n, vocab, generator=generator(seed + 1000), dtype=torch.float64) * scale


def student_logits(n, vocab, seed, dtype=torch.float32, scale=3.0):
    x = torch.randn(n, vocab, generator=generator(seed), dtype=torch.float64) * scale
    return x.to(dtype).requires_grad_()


def top_k(logits, k):
    """The ids, logp and tail of a sparse teacher, in float64, from logits [N,V]."""
    full = torch.log_softmax(logits.double(), 1)
    logp, ids = full.topk(k, dim=1)
    return {"ids": ids.int(), "logp": logp, "tail_logp": full.scatter(1, ids, -math.inf).logsumexp(1)}


@dataclass(frozen=True)
class Form:
    """One loss and the kind of its second argument: dense, sparse, samples or labels."""

    loss: Loss
    kind: str

    def __str__(self):
        return f"{self.loss.name}-{self.kind}"

    @property
    def divergence(self):
        """Its row's divergence, for the flags; only divergences have one."""
        return DIVERGENCES[self.loss.name]

    def inputs(self, n, vocab, k=5, seed=0, logits=None) -> Inputs:
        """The loss's inputs except the student's logits, made from a teacher's logits; float64 or integers."""
        logits = teacher_logits(n, vocab, seed) if logits is None else logits
        if self.kind == "dense":
            return {"logits": logits}
        if self.kind == "sparse":
            return top_k(logits, k)
        if self.kind == "labels":
            labels = torch.randint(vocab, (n,), generator=generator(seed))
            return {"labels": labels, "weights": 1.0 + torch.rand(n, generator=generator(seed)).double()}
        ids = torch.randint(vocab, (n, k), generator=generator(seed))
        return {"sample_ids": ids, "sample_counts": torch.randint(1, 9, (n, k), generator=generator(seed))}

    def teacher(self, inputs, temperature=1.0):
        if self.kind == "dense":
            return DenseTeacher(inputs["logits"])
        return SparseTeacher(inputs["ids"], inputs["logp"], inputs["tail_logp"], temperature)

    def term(self, x, inputs, **options):
        if not self.loss.teacher:
            return self.loss.function(x, **inputs, **options)
        return self.loss.function(x, self.teacher(inputs, options.get("temperature", 1.0)), **options)

    def targets(self, inputs, vocab, temperature=1.0):
        """The same inputs as `RowTargets` for `linear_kd`."""
        if self.loss.teacher:
            teacher, divergence = self.teacher(inputs, temperature), DIVERGENCES[self.loss.name]
            return RowTargets(teacher=teacher, divergence=divergence, temperature=temperature)
        if self.kind == "labels":
            return RowTargets(labels=inputs["labels"][:, None], label_coefficients=inputs["weights"][:, None])
        labels, weights = sample_labels(*inputs.values(), vocab, torch.float64)
        return RowTargets(labels=labels, label_coefficients=weights)

    def oracle(self, x, inputs, **options):
        """The value of each row, computed in plain Python."""
        columns = (x.detach().double(), *inputs.values())
        row = {
            "dense": lambda *row: naive.dense_row(self.loss.name, *row, **options),
            "sparse": lambda *row: naive.sparse_row(self.loss.name, *row, **options),
            "samples": naive.sampled_kl_row,
            "labels": naive.cross_entropy_row,
        }[self.kind]
        return naive.rows(row, *columns)

    def twin_gradient(self, x, inputs, **options):
        """The gradient of the sum over rows, by autograd in float64."""
        x = x.detach().double().requires_grad_()
        rows = range(len(x))
        if self.loss.teacher:
            row = twins.dense_row if self.kind == "dense" else twins.sparse_row
            values = [
                row(self.loss.name, x[i], *(column[i] for column in inputs.values()), **options) for i in rows
            ]
        else:
            logq = x.log_softmax(1)
            if self.kind == "labels":
                values = [-inputs["weights"][i] * logq[i, inputs["labels"][i]] for i in rows]
            else:
                counts = inputs["sample_counts"].double()
                shares = counts / counts.sum(1, keepdim=True)
                values = [-(shares[i] * logq[i, inputs["sample_ids"][i]]).sum() for i in rows]
        return torch.autograd.grad(torch.stack(values).sum(), x)[0]


def bend(logits, kinds, seed):
    """Logits [N,V] with some rows made huge, one-hot or partly -inf."""
    logits, draws = logits.clone(), generator(seed)
    for i, kind in enumerate(kinds):
        if kind == "huge":
            logits[i] = logits[i].sign() * 1e4
        elif kind == "one_hot":
            best = int(logits[i].argmax())
            logits[i] = 0.0
            logits[i, best] = 1e4
        elif kind == "masked":
            hidden = torch.rand(logits.shape[1], generator=draws) < 0.4
            hidden[torch.randint(logits.shape[1], (1,), generator=draws)] = False
            logits[i, hidden] = -math.inf
    return logits


def take(inputs, rows):
    return {name: value[rows] for name, value in inputs.items()}


FORMS = [
    Form(loss, kind)
    for loss in LOSSES
    for kind in (
        ("dense", "sparse") if loss.teacher else ("labels" if loss.name == "cross_entropy" else "samples",)
    )
]
