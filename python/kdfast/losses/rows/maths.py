"""The maths of a chunk of rows: logits in, values out, and the gradient left where the logits were.

Every loss of a row is a function of a few gathered logits and of one softmax over the rest, so all that is
learnt at a row (a divergence from the teacher, any number of labels) shares that softmax. The buffer of logits is
overwritten by its softmax, then scaled, then corrected at the gathered ids. No second buffer of its size is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kdfast.losses.rows.kernel import FLOOR, OUT_OF_USE, Classwise, Divergence
from kdfast.losses.rows.numerics import blocks, softmax_
from kdfast.losses.rows.teacher import Classes, DenseHead, DenseTeacher


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a chunk of M rows is to learn, checked and ready; see `RowTargets` for the form that users give.

    Attributes:
        labels: [M,J] ids (0 where there is none).
        absent: [M,J] bool, where there is none.
        label_coefficients: [M,J], 0 where there is no label.
        classes: a sparse teacher; None = there is none.
        dense: a dense teacher; None = there is none. At most one of the two is given.
        divergence: the divergence from the teacher.
        kl_coefficients: [M], 0 where no distribution is known.
        known: [M] bool, rows whose divergence is wanted; its value is computed also where the coefficient is 0.
        temperature: temperature of the divergence.
        scratch: memory for a dense teacher's logits, at least [M,Vt], used again by each chunk; None = make it.
    """

    labels: Tensor
    absent: Tensor
    label_coefficients: Tensor
    classes: Classes | None
    dense: DenseTeacher | DenseHead | None
    divergence: Divergence
    kl_coefficients: Tensor
    known: Tensor
    temperature: float
    scratch: Tensor | None = None

    def take(self, rows: slice) -> Targets:
        """The targets of some rows."""
        return replace(
            self,
            labels=self.labels[rows],
            absent=self.absent[rows],
            label_coefficients=self.label_coefficients[rows],
            classes=self.classes.take(rows) if self.classes is not None else None,
            dense=self.dense.take(rows) if self.dense is not None else None,
            kl_coefficients=self.kl_coefficients[rows],
            known=self.known[rows],
        )


@dataclass(frozen=True)
class Values:
    """What rows cost before coefficients; 0 where not finite.

    Attributes:
        kl: [M], the divergence times the temperature's power.
        labels: [M,J], -log q of each label.
        bad_kl: [M] bool, the divergence was not finite.
        bad_labels: [M,J] bool, the label's value was not finite.
        bad_teacher: [M] bool, NaN or +inf among a dense teacher's logits.
    """

    kl: Tensor
    labels: Tensor
    bad_kl: Tensor
    bad_labels: Tensor
    bad_teacher: Tensor


def rows_(x: Tensor, targets: Targets) -> Values:
    """The values of rows, and in place of their logits the gradient of `sum of coefficient * value`.

    Args:
        x: [M,V] fp32 or fp64 logits; overwritten.
        targets: what these rows learn.
    """
    if targets.temperature != 1.0 and (targets.classes is not None or targets.dense is not None):
        return _with_temperature_(x, targets)
    if targets.dense is not None and len(x):
        return _dense_(x, targets.dense, replace(targets, dense=None))
    return _sparse_(x, targets)


def _with_temperature_(x: Tensor, targets: Targets) -> Values:
    """The divergence on a copy at its temperature, the labels on x itself."""
    temperature, power = targets.temperature, targets.divergence.temperature_power
    scaled = x / temperature
    if targets.dense is not None:
        logits = targets.dense.fill(x.new_empty(len(x), targets.dense.vocab)) / temperature
        targets = replace(targets, dense=DenseTeacher(logits))
    alone = replace(
        targets,
        temperature=1.0,
        labels=targets.labels[:, :0],
        absent=targets.absent[:, :0],
        label_coefficients=targets.label_coefficients[:, :0],
        # value: T^power; gradient: T^power / T, because the logits were divided by T
        kl_coefficients=targets.kl_coefficients * temperature ** (power - 1),
    )
    divergence = rows_(scaled, alone)
    labels = _sparse_(x, replace(targets, classes=None, dense=None))
    x += scaled
    return replace(
        divergence, kl=divergence.kl * temperature**power, labels=labels.labels, bad_labels=labels.bad_labels
    )


def _labels(logq: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the labels' log-probabilities [M,J]: values, which are not finite, and the coefficients without those."""
    value = -logq
    bad = ~value.isfinite()
    return value.masked_fill(bad, 0.0), bad, coefficients.masked_fill(bad, 0.0)


def _sparse_(x: Tensor, targets: Targets) -> Values:
    """Rows with a sparse teacher, or with labels alone."""
    classes, labels = targets.classes, targets.labels
    picked = x.gather(1, labels)  # [M,J]
    top = x.new_empty(len(x), 0)  # [M,K]
    if classes is not None:
        top = x.gather(1, classes.ids).masked_fill(~classes.usable, -math.inf)
        _hide_(x, classes)
    rest_max, rest_sum = softmax_(x)  # [M], [M]
    z = torch.cat([top, rest_max[:, None]], 1)  # [M,K+1]
    # subtract the row's maximum from everything, so that large logits lose no digits
    rowmax = z.amax(1, keepdim=True)
    z = z - rowmax
    z[:, -1] += rest_sum
    lse = z.logsumexp(1, keepdim=True)  # [M,1]
    value, bad_labels, left = _labels(picked - rowmax - lse, targets.label_coefficients)
    unknown = ~lse[:, 0].isfinite()
    logq = z - lse
    slope = logq.exp() * left.sum(1, keepdim=True)
    kl, bad_kl = x.new_zeros(len(x)), torch.zeros_like(unknown)
    if classes is not None:
        pair, dead = _pair(classes.logp, logq, -FLOOR - lse)
        kl, h, _ = targets.divergence.kernel(pair)
        bad_kl = unknown | ~kl.isfinite()
        kl = kl.masked_fill(bad_kl, 0.0)
        coefficient = targets.kl_coefficients.masked_fill(bad_kl, 0.0)[:, None]
        slope += coefficient * _logit_slope(h, logq, dead)
    slope.masked_fill_(unknown[:, None], 0.0)
    x.mul_(slope[:, -1:])
    if classes is not None:
        x.scatter_add_(1, classes.ids, slope[:, :-1].masked_fill(~classes.usable, 0.0))
    x.scatter_add_(1, labels, -left)  # in an unknown row all of this is 0
    return Values(kl, value, bad_kl, bad_labels, torch.zeros_like(bad_kl))


def _hide_(x: Tensor, classes: Classes) -> None:
    """-inf at the usable ids, so that what is left is "any other id"."""
    usable, ids = classes.usable, classes.ids
    # Unused entries carry id 0. Send their write to the row's first used id, or they would set column 0 to -inf.
    hidden = torch.where(usable, ids, ids.gather(1, usable.int().argmax(1, keepdim=True)))
    x.scatter_(1, hidden, x.gather(1, hidden).masked_fill(usable.any(1, keepdim=True), -math.inf))


def _pair(logp: Tensor, logq: Tensor, floor: Tensor) -> tuple[Classwise, Tensor]:
    """Teacher and student over k+1 classes without infinities; [M,K+1] classes that the student's logits lack."""
    dead, absent = logq == -math.inf, logp == -math.inf
    out = dead & absent
    logq = torch.where(dead, floor, logq).masked_fill(out, OUT_OF_USE)
    # A class without teacher mass counts as exp(-60). Only the tail is clamped; the k stored values stay.
    logp = logp.masked_fill(absent, -FLOOR)
    logp[:, -1].clamp_(min=-FLOOR)
    logp.masked_fill_(out, OUT_OF_USE)
    return Classwise(logp.exp(), logp, logq.exp(), logq), dead


def _logit_slope(h: Tensor, logq: Tensor, dead: Tensor) -> Tensor:
    """dD/dz of the class logits z, from h. A floored class is a constant, without gradient; each row sums to 0."""
    live = h.masked_fill(dead, 0.0)
    return live - logq.exp() * live.sum(1, keepdim=True)


def _dense_(x: Tensor, dense: DenseTeacher | DenseHead, targets: Targets) -> Values:
    """Rows with a dense teacher, a block at a time, so that a block's temporaries stay in a CPU's cache."""
    scratch = targets.scratch
    teacher = dense.fill(scratch if scratch is not None else x.new_empty(len(x), dense.vocab))
    size = min(len(x), next(blocks(x)).stop)
    space = x.new_empty(size, x.shape[1]), x.new_empty(size, x.shape[1])
    parts = [_dense_block_(x[rows], teacher[rows], targets.take(rows), space) for rows in blocks(x)]
    return Values(*(torch.cat(column) for column in zip(*map(_columns, parts), strict=True)))


def _columns(values: Values) -> tuple[Tensor, ...]:
    return tuple(getattr(values, field.name) for field in fields(values))


def _dense_block_(x: Tensor, teacher: Tensor, targets: Targets, space: tuple[Tensor, Tensor]) -> Values:
    """One block; both models' logits and both spaces [>=M,V] are overwritten."""
    known = targets.known
    teacher = _aligned(teacher, x.shape[1], known)
    dead = both = None
    if not bool(x.amin().isfinite() & teacher.amin().isfinite()):
        dead, absent = x == -math.inf, teacher == -math.inf
        teacher = torch.where(absent & ~dead, teacher.amax(1, keepdim=True) - FLOOR, teacher)
        both = dead & absent
    logq, logp = torch.log_softmax(x, 1, out=x), torch.log_softmax(teacher, 1, out=teacher)
    # log_softmax makes every number of a row NaN if the row has NaN, +inf, or nothing but -inf
    unknown, bad_teacher = logq[:, 0].isnan(), known & logp[:, 0].isnan()
    value, bad_labels, left = _labels(logq.gather(1, targets.labels), targets.label_coefficients)
    q, p = torch.exp(logq, out=space[0][: len(x)]), torch.exp(logp, out=space[1][: len(x)])
    if dead is not None and both is not None:
        logq = torch.where(dead, logq.amax(1, keepdim=True) - FLOOR, logq).masked_fill_(both, OUT_OF_USE)
        logp.masked_fill_(both, OUT_OF_USE)
    kl, h, h_sum = targets.divergence.kernel(Classwise(p, logp, q, logq))
    bad_kl = known & ~kl.isfinite()
    unusable = bad_kl | ~known
    if dead is not None or bool(unusable.any()):
        kl = kl.masked_fill(unusable, 0.0)
        h = h.masked_fill(unusable[:, None] if dead is None else unusable[:, None] | dead, 0.0)
        h_sum = h.sum(1)
    coefficient = targets.kl_coefficients[:, None]
    q.mul_(left.sum(1, keepdim=True) - coefficient * h_sum[:, None])
    torch.addcmul(q, h, coefficient, out=x)
    x.scatter_add_(1, targets.labels, -left)
    if bool(unknown.any()):
        x[unknown] = 0.0
    return Values(kl, value, bad_kl, bad_labels, bad_teacher)


def _aligned(teacher: Tensor, vocab: int, known: Tensor) -> Tensor:
    """Teacher logits on the student's ids: surplus ids dropped, missing ones -inf, unknown rows all 0."""
    if teacher.shape[1] > vocab:
        teacher = teacher[:, :vocab]
    elif teacher.shape[1] < vocab:
        teacher = torch.nn.functional.pad(teacher, (0, vocab - teacher.shape[1]), value=-math.inf)
    return teacher if bool(known.all()) else teacher.masked_fill(~known[:, None], 0.0)
