"""All loss terms of a batch at once, from hidden states and the output layer: what training minimises.

The rows' losses (divergence, drawn ids, cross-entropies, the call's first tokens) share one pass over chunks of logits
(`linear_kd`); the few positions that the length and early-tool losses look at are projected once more, in a second
small product. `kd.fused: false` makes the logits of all supervised positions and calls the plain functions: equal
numbers, for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.losses.combined.position_terms import PositionTerms, fused_terms, plain_terms
from kdfast.losses.combined.supervision import supervision
from kdfast.losses.combined.table import BatchPlan, LossSettings, plan_batch, term_weights
from kdfast.losses.latency.early_tool_call_loss import (
    EarlyToolOptions,
    early_tool_diagnostics,
    early_tool_from_log_odds,
)
from kdfast.losses.latency.length_aware_kd_loss import LengthOptions, LengthTerm, length_loss_from_log_odds
from kdfast.losses.latency.length_plan import LengthPlan
from kdfast.losses.latency.log_odds import linear_log_odds, log_odds
from kdfast.losses.latency.positions import positions_in
from kdfast.losses.term import Term, supervised_mask


@dataclass(frozen=True)
class CombinedLoss:
    """The terms of a batch.

    Attributes:
        total: scalar on the graph, the sum of weight * total / count over the terms.
        terms: each enabled term; on the fused path the totals of terms inside the one fused pass are detached.
        diagnostics: means that are logged beside the loss, as detached sums and counts that add up over micro-batches
            and ranks.
        excess: [R] detached, what the length loss's hinge sees in each row that it counts.
        relative_excess: [R] detached, E/L - 1 of the same rows.
        left_out: rows that a latency loss cannot use, by `loss.reason`.
        best: [N] int64, the student's likeliest id at each position of `supervised_mask`; empty unless asked for.
    """

    total: Tensor
    terms: Mapping[str, Term]
    diagnostics: Mapping[str, Term]
    excess: Tensor
    relative_excess: Tensor
    left_out: Mapping[str, int]
    best: Tensor


def combined_kd_loss(
    hidden: Tensor,
    weight: Tensor,
    batch: Mapping[str, Tensor],
    settings: LossSettings,
    *,
    weights: Mapping[str, float] | None = None,
    counts: Mapping[str, float] | None = None,
    want_best: bool = False,
) -> CombinedLoss:
    """The weighted sum of all enabled terms of one (micro-)batch, and each of them.

    Args:
        hidden: [B,T',D] last hidden states of the student, T' <= T; positions beyond T' are padding in every row.
        weight: [V,D] of the output layer.
        batch: the batch contract, on the student's device.
        settings: the config's section `kd` and what else the terms need.
        weights: of the enabled terms at this optimiser step; None = `term_weights(settings.kd)`.
        counts: of the whole optimiser step (all micro-batches, all ranks); None = this batch is the whole step.
        want_best: also give the likeliest ids.

    Returns:
        `CombinedLoss`.

    Raises:
        DataError: labels or teacher numbers that cannot be right (a ValueError).
        FloatingPointError: a term is not finite, with the dataset's rows, under `kd.on_nan: raise`.

    Example:
        >>> from kdfast.config import KDConfig
        >>> settings = LossSettings(kd=KDConfig(kl_weight=0, ce_teacher_weight=0, ce_truth_weight=2.0))
        >>> batch = {"labels": torch.tensor([[-100, 1, 2]]), "source": torch.tensor([1])}
        >>> loss = combined_kd_loss(torch.zeros(1, 3, 5), torch.zeros(4, 5), batch, settings)
        >>> round(float(loss.total), 4), {name: term.count for name, term in loss.terms.items()}  # 2 log 4
        (2.7726, {'ce_truth': 2.0})
    """
    plan = plan_batch(batch, settings)
    weights = term_weights(settings.kd) if weights is None else weights
    counts = plan.counts if counts is None else counts
    # a term without positions has the total 0: any divisor gives 0
    coefficients = {name: value / (counts[name] or 1.0) for name, value in weights.items()}
    mask = supervised_mask(batch)[:, : hidden.shape[1]]
    given = supervision(batch, mask, plan.early, settings)
    picked = hidden[mask]
    if settings.kd.fused:
        rows = fused_terms(picked, weight, given, coefficients, settings, want_best=want_best)
        latency = _Latency(mask, lambda wanted, ids: _fused_odds(picked, weight, wanted, ids, settings))
    else:
        logits = torch.nn.functional.linear(picked, weight)
        rows = plain_terms(logits, given, coefficients, settings, want_best=want_best)
        latency = _Latency(mask, lambda wanted, ids: log_odds(logits[wanted], ids))
    return _assemble(rows, latency, plan, coefficients, settings)


@dataclass(frozen=True)
class _Latency:
    """How to get log-odds of ids at positions of the batch."""

    mask: Tensor
    odds: Callable[[Tensor, Sequence[int]], Tensor]

    def at(self, wanted: Tensor, ids: Sequence[int], name: str) -> Tensor:
        """[M] at the positions wanted [B,T], row-major."""
        return self.odds(positions_in(self.mask, wanted[:, : self.mask.shape[1]], name), ids)


def _fused_odds(
    picked: Tensor, weight: Tensor, wanted: Tensor, ids: Sequence[int], settings: LossSettings
) -> Tensor:
    return linear_log_odds(picked[wanted], weight, ids, chunk_rows=settings.kd.chunk_rows)


def _assemble(
    rows: PositionTerms,
    latency: _Latency,
    plan: BatchPlan,
    coefficients: Mapping[str, float],
    settings: LossSettings,
) -> CombinedLoss:
    """Adds the latency terms to those of the positions."""
    kd, terms, total = settings.kd, dict(rows.terms), rows.total
    later: dict[str, Term] = {}
    diagnostics: dict[str, Term] = {}
    left_out: dict[str, int] = {}
    length = None
    if plan.length is not None:
        odds = latency.at(plan.length.gate, settings.eos_ids, "gate")
        length = length_loss_from_log_odds(odds, plan.length, length_options(settings), nan=kd.on_nan)
        later["length"] = length.term
        diagnostics |= _length_diagnostics(length, plan.length)
        left_out |= {f"length.{reason}": count for reason, count in plan.length.skipped.items()}
    if plan.early is not None:
        early: dict[str, Term] = {}
        if plan.early.parts != ("early_tool_ce",):
            odds = latency.at(plan.early.opening, settings.opening_ids, "opening")
            options = EarlyToolOptions(max_preamble_tokens=kd.max_preamble_tokens)
            early = early_tool_from_log_odds(odds, plan.early, options, nan=kd.on_nan)
        later |= early
        diagnostics |= {
            f"early_tool.{name}": term for name, term in early_tool_diagnostics(plan.early, early).items()
        }
        left_out |= {f"early_tool.{reason}": count for reason, count in plan.early.skipped.items()}
    for name, term in later.items():
        total = total + term.scaled(coefficients[name])
    terms |= later
    nothing = total.detach().new_empty(0)
    return CombinedLoss(
        total,
        terms,
        diagnostics,
        length.excess if length is not None else nothing,
        length.relative_excess if length is not None else nothing,
        left_out,
        rows.best,
    )


def length_options(settings: LossSettings) -> LengthOptions:
    """The length loss's options of a config.

    Example:
        >>> from kdfast.config import KDConfig
        >>> length_options(LossSettings(kd=KDConfig(length_hinge=0.3))).hinge
        0.3
    """
    kd = settings.kd
    return LengthOptions(
        form=kd.length_form,
        slope=kd.length_slope,
        hinge=kd.length_hinge,
        quantile=kd.length_quantile,
        max_new_tokens=kd.max_new_tokens,
        hinge_open=settings.hinge_open,
    )


def _length_diagnostics(length: LengthTerm, plan: LengthPlan) -> dict[str, Term]:
    excess = length.excess
    exempt = plan.skipped["exempt"]
    return {
        "len_kd.frac_penalized": Term((excess > 0).sum().float(), len(excess)),
        "len_kd.frac_exempt": Term(torch.tensor(float(exempt)), exempt + plan.count),
    }
