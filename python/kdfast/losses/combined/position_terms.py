"""The terms that look at one position each (divergence, drawn ids, cross-entropies), fused or plain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.config.kd import KDConfig
from kdfast.losses.combined.supervision import Supervision
from kdfast.losses.combined.table import LossSettings
from kdfast.losses.rows.autograd import RowTargets, divergence_term
from kdfast.losses.rows.kernel import Divergence
from kdfast.losses.rows.linear_kd import LinearKD, linear_kd
from kdfast.losses.rows.numerics import computing_dtype, handle_bad_rows
from kdfast.losses.term import IGNORE_INDEX, SOURCES, Term
from kdfast.losses.token.cross_entropy import cross_entropy
from kdfast.losses.token.forward_kl import FORWARD_KL
from kdfast.losses.token.generalized_jsd import jsd
from kdfast.losses.token.reverse_kl import REVERSE_KL
from kdfast.losses.token.sampled_kl import sample_labels, sampled_kl
from kdfast.losses.token.skew_kl import skew


@dataclass(frozen=True)
class PositionTerms:
    """Those that are enabled and have inputs in this batch.

    Attributes:
        total: scalar on the graph, their weighted sum.
        terms: each; detached on the fused path.
        best: [N] int64 likeliest ids; empty unless asked for.
    """

    total: Tensor
    terms: dict[str, Term]
    best: Tensor


def divergence_of(kd: KDConfig) -> Divergence:
    """The divergence that a config names.

    Example:
        >>> divergence_of(KDConfig(divergence="generalized_jsd", jsd_beta=1.0)).name
        'reverse_kl'
    """
    return {
        "forward_kl": FORWARD_KL,
        "reverse_kl": REVERSE_KL,
        "generalized_jsd": jsd(kd.jsd_beta),
        "skew_kl": skew(kd.skew_alpha),
    }[kd.divergence]


def plain_terms(
    logits: Tensor,
    given: Supervision,
    coefficients: Mapping[str, float],
    settings: LossSettings,
    *,
    want_best: bool,
) -> PositionTerms:
    """The terms by the plain functions, each on the logits [N,V]."""
    kd, terms = settings.kd, {}
    if "kl" in coefficients and given.taught is not None:
        teacher, known = given.taught
        terms["kl"] = divergence_term(
            logits, teacher, divergence_of(kd), mask=known, temperature=kd.temperature, nan="skip_row"
        )
    if "sampled_kl" in coefficients and given.drawn is not None:
        drawn = given.drawn
        terms["sampled_kl"] = sampled_kl(logits, drawn.ids, drawn.counts, mask=drawn.mask, nan="skip_row")
    for source, number in SOURCES.items():
        if f"ce_{source}" in coefficients:
            own = torch.where(given.source == number, given.labels, IGNORE_INDEX)
            terms[f"ce_{source}"] = cross_entropy(logits, own, given.spans, nan="skip_row")
    if given.early_targets is not None:
        terms["early_tool_ce"] = cross_entropy(logits, given.early_targets, nan="skip_row")
    for name, term in terms.items():
        if term.skipped:
            handle_bad_rows(_not_finite(logits, given), given.numbers, kd.on_nan, f"{name}: logits")
    parts = [term.scaled(coefficients[name]) for name, term in terms.items()]
    total = torch.stack([logits[:0].sum().to(computing_dtype(logits.dtype)), *parts]).sum()
    best = (logits if want_best else logits[:0]).argmax(1)
    return PositionTerms(total, terms, best)


def _not_finite(logits: Tensor, given: Supervision) -> Tensor:
    """[N] bool, rows whose softmax is not finite, or whose label is impossible."""
    lse = logits.detach().to(computing_dtype(logits.dtype)).logsumexp(1)
    bad = ~lse.isfinite()
    for labels in (given.labels, given.early_targets):
        if labels is not None:
            there = logits.gather(1, labels.clamp(min=0)[:, None])[:, 0]
            bad = bad | ((labels != IGNORE_INDEX) & (there == -torch.inf))
    return bad


def fused_terms(
    hidden: Tensor,
    weight: Tensor,
    given: Supervision,
    coefficients: Mapping[str, float],
    settings: LossSettings,
    *,
    want_best: bool,
) -> PositionTerms:
    """The terms by one `linear_kd` over the hidden states [N,D]."""
    kd, dtype = settings.kd, computing_dtype(weight.dtype)
    slots = _slots(given, coefficients, len(weight), dtype)
    taught = given.taught if "kl" in coefficients else None
    targets = RowTargets(
        labels=torch.cat([slot.labels for slot in slots], 1) if slots else given.labels[:, None][:, :0],
        label_coefficients=torch.cat([slot.coefficients for slot in slots], 1) if slots else None,
        teacher=taught.teacher if taught is not None else None,
        divergence=divergence_of(kd),
        kl_coefficients=taught.known.to(dtype) * coefficients["kl"] if taught is not None else None,
        temperature=kd.temperature,
    )
    result = linear_kd(hidden, weight, targets, chunk_rows=kd.chunk_rows, want_best=want_best, nan="skip_row")
    terms = {}
    if taught is not None:
        _handle(result.bad_kl, given, kd, "kl")
        terms["kl"] = Term(result.kl.sum(), int(taught.known.sum()), int(result.bad_kl.sum()))
    terms |= _slot_terms(result, slots, given, kd)
    return PositionTerms(result.total, terms, result.best)


def _handle(bad: Tensor, given: Supervision, kd: KDConfig, name: str) -> None:
    handle_bad_rows(bad, given.numbers, kd.on_nan, f"{name}: logits")


@dataclass(frozen=True)
class _Slot:
    """Columns of labels that make one or more terms.

    Attributes:
        labels: [N,J] int64, -100 = none.
        coefficients: [N,J].
        weights: [N,J] what the reported sums multiply the values by.
        terms: name -> which rows [N] bool belong to it.
    """

    labels: Tensor
    coefficients: Tensor
    weights: Tensor
    terms: Mapping[str, Tensor]


def _slots(
    given: Supervision, coefficients: Mapping[str, float], vocab: int, dtype: torch.dtype
) -> list[_Slot]:
    slots, spans = [], given.spans.to(dtype)
    if given.drawn is not None and "sampled_kl" in coefficients:
        labels, shares = sample_labels(given.drawn.ids, given.drawn.counts, vocab, dtype)
        scale = shares * coefficients["sampled_kl"]
        slots.append(_Slot(labels, scale, shares, {"sampled_kl": given.drawn.mask}))
    rows = {
        f"ce_{source}": (given.source == number) & (given.labels != IGNORE_INDEX)
        for source, number in SOURCES.items()
        if f"ce_{source}" in coefficients
    }
    if rows:
        scale = torch.stack([own.to(dtype) * coefficients[name] for name, own in rows.items()]).sum(0)
        used = torch.stack(list(rows.values())).any(0)
        labels = given.labels.masked_fill(~used, IGNORE_INDEX)[:, None]
        slots.append(_Slot(labels, (spans * scale)[:, None], spans[:, None], rows))
    if given.early_targets is not None:
        own = given.early_targets != IGNORE_INDEX
        ones = torch.ones_like(spans)[:, None]
        scale = ones * coefficients["early_tool_ce"]
        slots.append(_Slot(given.early_targets[:, None], scale, ones, {"early_tool_ce": own}))
    return slots


def _slot_terms(result: LinearKD, slots: list[_Slot], given: Supervision, kd: KDConfig) -> dict[str, Term]:
    terms, start = {}, 0
    for slot in slots:
        columns = slice(start, start + slot.labels.shape[1])
        start = columns.stop
        values = (result.labels[:, columns] * slot.weights).sum(1)
        broken = result.bad_labels[:, columns].any(1)
        for name, own in slot.terms.items():
            bad = broken & own
            _handle(bad, given, kd, name)
            count = (
                float((slot.weights[:, 0] * own).double().sum()) if name != "sampled_kl" else int(own.sum())
            )
            terms[name] = Term(values[own].sum(), count, int(bad.sum()))
    return terms
