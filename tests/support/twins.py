"""The divergences in plain float64 torch, one row at a time. Tests compare gradients with autograd's of these."""

import math

import torch
from naive import FLOOR, TEMPERATURE_POWER, bucket_classes, dense_classes


def _kl(logp, logq):
    return (logp.exp() * (logp - logq)).sum()


def _mixture(logp, logq, share):
    return torch.logaddexp(logp + math.log(share), logq + math.log(1 - share))


def forward_kl(logp, logq):
    return _kl(logp, logq)


def reverse_kl(logp, logq):
    return _kl(logq, logp)


def generalized_jsd(logp, logq, beta=0.5):
    middle = _mixture(logp, logq, beta)
    return beta * _kl(logp, middle) + (1 - beta) * _kl(logq, middle)


def skew_kl(logp, logq, alpha=0.1):
    return _kl(logp, _mixture(logp, logq, alpha))


def tvd(logp, logq):
    return (logp.exp() - logq.exp()).abs().sum() / 2


TWINS = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "generalized_jsd": generalized_jsd,
    "skew_kl": skew_kl,
    "tvd": tvd,
}


def _student(z, classes):
    """The student's log-probability of each class, [C]; a class without any mass gets a constant."""
    logq = z.log_softmax(0)
    floor = (logq.max() - FLOOR).detach()
    parts = []
    for members in classes:
        alive = [i for i in members if z[i] > -math.inf]
        parts.append(logq[alive].logsumexp(0) if alive else floor)
    return torch.stack(parts)


def dense_row(name, z, teacher, temperature=1.0, **options):
    """The divergence of one row of float64 logits z [V] from teacher logits [Vt]."""
    z = z / temperature
    classes, logp = dense_classes(z.tolist(), (teacher.double() / temperature).tolist())
    logp = torch.tensor(logp, dtype=torch.float64)
    return temperature ** TEMPERATURE_POWER.get(name, 2) * TWINS[name](logp, _student(z, classes), **options)


def sparse_row(name, z, ids, logp, tail, temperature=1.0, **options):
    """The divergence of one row of float64 logits z [V] from a sparse teacher's row."""
    z = z / temperature
    classes, logp = bucket_classes(z.tolist(), ids.tolist(), logp.tolist(), float(tail))
    logp = torch.tensor(logp, dtype=torch.float64)
    return temperature ** TEMPERATURE_POWER.get(name, 2) * TWINS[name](logp, _student(z, classes), **options)
