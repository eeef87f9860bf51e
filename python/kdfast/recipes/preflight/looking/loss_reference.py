"""The losses written the slow, obvious way in float64, one position or one answer at a time.

The checks hold the fast losses against them. No code is shared, so that one mistake cannot be in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kdfast.config.kd import KDConfig

FLOOR = 60.0
"""Where only one of two models gives a class no mass, the class counts as exp(-60) of that model's likeliest."""
_LIMIT = 1e4


def label_cost(logits: Tensor, label: int) -> float:
    """-log q of one id.

    Args:
        logits: [V] float64.
        label: the id.

    Example:
        >>> round(label_cost(torch.zeros(4, dtype=torch.float64), 2), 4)  # log 4
        1.3863
    """
    return float(logits.logsumexp(0) - logits[label])


def drawn_cost(logits: Tensor, ids: Sequence[int], counts: Sequence[int]) -> float:
    """The mean of -log q over ids that were drawn; one that the student does not have is dropped.

    Args:
        logits: [V] float64.
        ids: the distinct ids.
        counts: how often each was drawn.

    Example:
        >>> round(drawn_cost(torch.tensor([0.5, 0.5]).double().log(), [0, 1, 7], [3, 1, 9]), 4)  # log 2
        0.6931
    """
    drawn = [(one, count) for one, count in zip(ids, counts, strict=True) if count > 0 and one < len(logits)]
    total = sum(count for _, count in drawn)
    return sum(count * label_cost(logits, one) for one, count in drawn) / max(total, 1)


def divergence(logp: Tensor, logq: Tensor, kd: KDConfig) -> float:
    """The config's divergence of two distributions over the same classes, without temperature.

    Args:
        logp: [C] float64 log-probabilities of the teacher.
        logq: [C] float64 of the student.
        kd: which divergence, and its parameter.

    Example:
        >>> p, q = torch.tensor([0.5, 0.5]).double().log(), torch.tensor([0.75, 0.25]).double().log()
        >>> divergence(p, q, KDConfig(divergence="tvd"))
        0.25
        >>> round(divergence(p, q, KDConfig()), 4), round(divergence(p, q, KDConfig(divergence="reverse_kl")), 4)
        (0.1438, 0.1308)
    """
    if kd.divergence == "tvd":
        return float((logp.exp() - logq.exp()).abs().sum() / 2)
    if kd.divergence == "reverse_kl":
        return _kl(logq, logp)
    if kd.divergence == "skew_kl":
        return _kl(logp, _mixture(logp, logq, kd.skew_alpha))
    if kd.divergence == "generalized_jsd" and kd.jsd_beta > 0:
        middle = _mixture(logp, logq, kd.jsd_beta)
        rest = 1 - kd.jsd_beta
        return kd.jsd_beta * _kl(logp, middle) + rest * _kl(logq, middle) if rest else _kl(logq, logp)
    return _kl(logp, logq)


def _kl(logp: Tensor, logq: Tensor) -> float:
    given = logp > -math.inf
    return float((logp[given].exp() * (logp[given] - logq[given])).sum())


def _mixture(logp: Tensor, logq: Tensor, share: float) -> Tensor:
    return torch.log(share * logp.exp() + (1 - share) * logq.exp())


def stored_divergence(
    logits: Tensor, ids: Sequence[int], logp: Sequence[float], tail: float, kd: KDConfig
) -> float:
    """The divergence over the k ids of a teacher store and "any other id".

    Args:
        logits: [V] float64.
        ids: the k ids; one that the student does not have, or that came before, is dropped.
        logp: their log-probabilities; -inf = unused.
        tail: the log of the mass outside them.
        kd: which divergence, and its temperature, at which the store was written.

    Example:
        >>> logits = torch.zeros(4, dtype=torch.float64)
        >>> half, quarter = math.log(0.5), math.log(0.25)
        >>> round(stored_divergence(logits, [2, 0], [half, quarter], quarter, KDConfig()), 4)
        0.1733
    """
    known: dict[int, float] = {}
    for one, value in zip(ids, logp, strict=True):
        if value > -math.inf and one < len(logits):
            known.setdefault(one, value)
    if not known:
        return 0.0
    logq = (logits / kd.temperature).log_softmax(0)
    rest = torch.ones(len(logits), dtype=torch.bool)
    rest[list(known)] = False
    teacher, student = list(known.values()), logq[list(known)]  # [c]
    if bool(rest.any()):
        teacher, student = [*teacher, tail], torch.cat([student, logq[rest].logsumexp(0)[None]])
    p = torch.tensor(teacher, dtype=torch.float64).log_softmax(0)  # [c] or [c+1]
    if bool(rest.any()):
        p[-1] = max(float(p[-1]), -FLOOR)
    return _at_temperature(divergence(p, student, kd), kd)


def dense_divergence(logits: Tensor, teacher: Tensor, kd: KDConfig) -> float:
    """The divergence over all ids, from a teacher beside the student.

    Args:
        logits: [V] float64.
        teacher: [Vt] float64 logits; ids that the student does not have are dropped, those that it alone has count
            as exp(-60) of the likeliest.
        kd: which divergence, and its temperature.

    Example:
        >>> dense_divergence(torch.zeros(2).double(), torch.zeros(3).double(), KDConfig())
        0.0
    """
    teacher = teacher[: len(logits)] / kd.temperature
    missing = teacher.new_full((len(logits) - len(teacher),), float(teacher.max()) - FLOOR)
    logp = torch.cat([teacher, missing]).log_softmax(0)
    return _at_temperature(divergence(logp, (logits / kd.temperature).log_softmax(0), kd), kd)


def _at_temperature(value: float, kd: KDConfig) -> float:
    return value * kd.temperature ** (1 if kd.divergence == "tvd" else 2)


def log_odds(logits: Tensor, ids: Sequence[int]) -> float:
    """Log-odds of a set of ids against all others.

    Args:
        logits: [V] float64.
        ids: the set.

    Example:
        >>> round(log_odds(torch.zeros(4).double(), [3]), 4)  # one against three
        -1.0986
    """
    clamped = logits.clamp(-_LIMIT, _LIMIT)
    inside = torch.zeros(len(logits), dtype=torch.bool)
    inside[list(ids)] = True
    return float(clamped[inside].logsumexp(0) - clamped[~inside].logsumexp(0))


def tokens_before_opening(odds: Sequence[float]) -> float:
    """The expected number of tokens before a call, as far as where it is in the record.

    Args:
        odds: log-odds of opening a call, token by token.

    Example:
        >>> tokens_before_opening([0.0, 0.0])  # 1/2 + 1/4
        0.75
    """
    stay = logsigmoid(-torch.tensor(odds, dtype=torch.float64))
    return float(stay.cumsum(0).exp().sum())


def length_excess(odds: Mapping[int, float], length: int, kd: KDConfig) -> float:
    """How much longer than the teacher's the student's answer is to be expected, in the config's form.

    Args:
        odds: token of the answer (1 = the first) at which it may end -> log-odds of ending there; the last is always
            in it.
        length: L, the tokens of the teacher's answer.
        kd: the form, and where answers are cut.

    Example:
        >>> kd = KDConfig(length_form="ratio", length_hinge=0.0, max_new_tokens=4)
        >>> length_excess({2: 0.0}, 2, kd)  # (1 + 1 + 1/2 + 1/4) / 2 - 1
        0.375
    """
    going_on = torch.zeros(length, dtype=torch.float64)  # log of the chance not to end after each token
    for token, value in odds.items():
        going_on[token - 1] = logsigmoid(-torch.tensor(value, dtype=torch.float64))
    alive = going_on.cumsum(0)  # log of the chance not to have ended after each token
    last = float(going_on[-1])
    if kd.length_form == "quantile":
        further = math.floor(kd.length_hinge * length + 1e-9)
        return math.log(kd.length_quantile) - math.log(-math.expm1(float(alive[-1]) + further * last))
    stop, remaining = -math.expm1(last), max(kd.max_new_tokens - length, 0)
    beyond = -math.expm1(remaining * last) / stop if stop > 0 else float(remaining)
    expected = 1.0 + float(alive[:-1].exp().sum()) + math.exp(float(alive[-1])) * beyond
    ratio = expected / length
    if kd.length_form == "ratio":
        return ratio - 1 - kd.length_hinge
    return math.log(ratio) - math.log1p(kd.length_hinge)


def hidden_distance(student: Tensor, teacher: Tensor, form: str) -> float:
    """The distance of two hidden states.

    Args:
        student: [D] float64.
        teacher: [D] float64.
        form: "cosine", or "mse": in units of the teacher's root mean square.

    Example:
        >>> one, other = torch.tensor([1.0, 0.0]).double(), torch.tensor([2.0, 2.0]).double()
        >>> round(hidden_distance(one, other, "cosine"), 4), hidden_distance(one, other, "mse")
        (0.2929, 0.625)
    """
    if form == "cosine":
        return 1 - float(student @ teacher / (student.norm() * teacher.norm()))
    return float((student - teacher).square().mean() / teacher.square().mean())
