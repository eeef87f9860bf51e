"""Early tool-call loss: a student that should call a tool is to open the call at once, and as the teacher does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import logsigmoid

from kdfast.batch import IGNORE_INDEX
from kdfast.losses.latency.early_tool_options import DEFAULT_OPTIONS, EarlyToolOptions, early_tool_ramp
from kdfast.losses.latency.early_tool_plan import DEFAULT_PARTS, PARTS, EarlyToolPlan, early_tool_plan
from kdfast.losses.latency.log_odds import log_odds
from kdfast.losses.latency.positions import positions_in
from kdfast.losses.rows.numerics import OnNan, computing_dtype, handle_bad_rows
from kdfast.losses.term import Term
from kdfast.losses.token.cross_entropy import cross_entropy

__all__ = [
    "DEFAULT_PARTS",
    "PARTS",
    "EarlyToolOptions",
    "EarlyToolPlan",
    "EarlyToolRows",
    "EarlyToolTerms",
    "early_tool_call_loss",
    "early_tool_diagnostics",
    "early_tool_from_log_odds",
    "early_tool_plan",
    "early_tool_ramp",
    "early_tool_rows",
]


@dataclass(frozen=True)
class EarlyToolTerms:
    """The parts that are switched on.

    Attributes:
        terms: part -> its sum and count; these add up over micro-batches and ranks.
        diagnostics: `frac_should_use`, `frac_target_available`, `mean_json_prior_nll0`, as detached sums and counts.
        total: ramp * sum of weight * mean of each part over this batch alone.
    """

    terms: Mapping[str, Term]
    diagnostics: Mapping[str, Term]
    total: Tensor


@dataclass(frozen=True)
class EarlyToolRows:
    """One part of the loss, on the device of the log-odds.

    Attributes:
        total: scalar on the graph, the sum of what its R rows cost.
        bad: [R] bool, rows with a log-odds that is not finite; they cost 0.
        numbers: [R] int64, what messages call the rows.
    """

    total: Tensor
    bad: Tensor
    numbers: Tensor


def early_tool_rows(
    log_odds: Tensor, plan: EarlyToolPlan, options: EarlyToolOptions = DEFAULT_OPTIONS
) -> dict[str, EarlyToolRows]:
    """The parts that need call-opening log-odds; it does not wait for the device.

    Args:
        log_odds: [M] as in `early_tool_from_log_odds`.
        plan: the batch's plan.
        options: `max_preamble_tokens` and `preamble_slope`.

    Returns:
        part -> `EarlyToolRows`.

    Raises:
        ValueError: there are not as many log-odds as `plan.opening` has positions.
    """
    if log_odds.shape != plan.opening_rows.shape:
        wanted = len(plan.opening_rows)
        raise ValueError(
            f"log_odds must have one entry an opening position ({wanted}): {list(log_odds.shape)}"
        )
    a = log_odds.to(computing_dtype(log_odds.dtype))
    broken = ~a.isfinite()
    a = a.masked_fill(broken, 0.0)
    parts = {}
    for part, entries in plan.entries.items():
        rows, entry = plan.opening_rows[entries], entries.to(a.device)
        if part == "early_tool_preamble":
            rows = plan.preamble_layout.rows
            bad = plan.preamble_layout.spread(broken[entry], False).any(1)
            excess = _expected_opening(a[entry], plan) - options.max_preamble_tokens
            value = options.preamble_slope * excess.relu()
        else:
            bad = broken[entry]
            value = -logsigmoid(a[entry] if part == "early_tool_prior" else -a[entry])
        parts[part] = EarlyToolRows(value.masked_fill(bad, 0.0).sum(), bad, plan.numbers[rows])
    return parts


def early_tool_from_log_odds(
    log_odds: Tensor,
    plan: EarlyToolPlan,
    options: EarlyToolOptions = DEFAULT_OPTIONS,
    *,
    nan: OnNan = "raise",
) -> dict[str, Term]:
    """The parts that need call-opening log-odds: all that the plan was asked for but `early_tool_ce`.

    With a the log-odds, prior = -log Q = softplus(-a), negative = -log(1-Q) = softplus(a), and preamble =
    slope * relu(E_open - max_preamble_tokens) with E_open = sum_{t<t0} prod_{s<=t} (1-Q_s), the expected number of
    tokens before the call opens, as far as t0.

    Args:
        log_odds: [M] at the positions of `plan.opening`, row-major; the maths is fp32 (fp64 for fp64).
        plan: the batch's plan.
        options: `max_preamble_tokens` and `preamble_slope`; weights and ramp do not act here.
        nan: what a row with a log-odds that is not finite does: "raise", or "skip_row" (value 0, no gradient,
            still counted).

    Returns:
        part -> `Term`; the counts are rows.

    Raises:
        FloatingPointError: a row is not finite, under `nan="raise"`.
        ValueError: there are not as many log-odds as `plan.opening` has positions.

    Example:
        >>> batch = {"labels": torch.tensor([[7, 2]]), "response_start": torch.tensor([1])}
        >>> batch |= {"response_length": torch.tensor([2]), "tool_should_be_used": torch.tensor([True])}
        >>> early_tool_from_log_odds(torch.zeros(1), early_tool_plan(batch))["early_tool_prior"].total
        tensor(0.6931)
    """
    terms = {}
    for part, rows in early_tool_rows(log_odds, plan, options).items():
        skipped = handle_bad_rows(rows.bad, rows.numbers.to(rows.bad.device), nan, "call-opening log-odds")
        terms[part] = Term(rows.total, plan.counts[part], skipped)
    return terms


def _expected_opening(a: Tensor, plan: EarlyToolPlan) -> Tensor:
    """E_open [R] of the rows with a preamble."""
    layout = plan.preamble_layout
    stay = layout.spread(logsigmoid(-a), 0.0)
    held = layout.spread(torch.ones_like(a), 0.0)
    return (stay.cumsum(1).exp() * held).sum(1)


def early_tool_diagnostics(plan: EarlyToolPlan, terms: Mapping[str, Term]) -> dict[str, Term]:
    """What is logged beside the loss, as detached sums and counts that add up over micro-batches.

    Args:
        plan: the batch's plan.
        terms: the parts of this batch.

    Returns:
        `frac_should_use` (of all rows), `frac_target_available` (rows with target tokens, of those that should call)
        and, where the prior was computed, `mean_json_prior_nll0` (-log Q at t0, over the prior's rows that were not
        skipped).
    """

    def share(part: str, whole: str) -> Term:
        return Term(torch.tensor(float(plan.rows[part]), device=plan.targets.device), plan.rows[whole])

    found = {
        "frac_should_use": share("should_use", "all"),
        "frac_target_available": share("target_available", "should_use"),
    }
    if "early_tool_prior" in terms:
        prior = terms["early_tool_prior"]
        found["mean_json_prior_nll0"] = Term(prior.total.detach(), prior.count - prior.skipped)
    return found


def early_tool_call_loss(
    logits: Tensor,
    mask: Tensor,
    batch: Mapping[str, Tensor],
    *,
    opening_ids: Sequence[int],
    options: EarlyToolOptions = DEFAULT_OPTIONS,
    nan: OnNan = "raise",
) -> EarlyToolTerms:
    """Teaches a student that should call a tool to open the call early.

    Rows that should call: cross-entropy on the first tokens of the teacher's call, or, where that is not known, the
    probability of opening a call at all. On request also a limit on the text before a call, and a push away from
    calls in rows that must not call; log the rate of false calls beside this loss.

    Args:
        logits: [N,V] at the positions of `mask`, row-major (`full[mask]`), any floating dtype; fp32 maths.
        mask: [B,T] bool; holds at least the plan's `opening` positions and those of its `targets`.
        batch: the batch contract, as in `early_tool_plan`.
        opening_ids: ids that can be the first token of a call, see `kdfast.teacher.call_opening_ids`.
        options: weights, limits and ramp.
        nan: what a value that is not finite does: "raise", or "skip_row" (value 0, no gradient, still counted).

    Returns:
        `EarlyToolTerms` with the parts whose weight is above 0.

    Raises:
        FloatingPointError: the value of a row is not finite, under `nan="raise"`.
        ValueError: bad `opening_ids`, a mask that lacks a position, a field that is missing.

    Example:
        >>> batch = {"labels": torch.tensor([[7, 2]]), "response_start": torch.tensor([1])}
        >>> batch |= {"response_length": torch.tensor([2]), "tool_should_be_used": torch.tensor([True])}
        >>> batch |= {"teacher_prefix_ids": torch.tensor([[7]])}
        >>> out = early_tool_call_loss(torch.zeros(2, 8), batch["labels"] >= 0, batch, opening_ids=[7])
        >>> {name: (round(float(term.total), 4), int(term.count)) for name, term in out.terms.items()}  # log 8
        {'early_tool_ce': (2.0794, 1), 'early_tool_prior': (0.0, 0)}
    """
    if int(mask.sum()) != len(logits):
        raise ValueError(
            f"logits must have one row for each position of mask ({int(mask.sum())}): {len(logits)}"
        )
    weights = options.weights
    plan = early_tool_plan(batch, max_tokens=options.max_tokens, parts=tuple(weights))
    terms: dict[str, Term] = {}
    if "early_tool_ce" in weights:
        terms["early_tool_ce"] = _prefix_cross_entropy(logits, mask, plan, nan)
    picked = logits[positions_in(mask, plan.opening, "opening").to(logits.device)]
    terms |= early_tool_from_log_odds(log_odds(picked, opening_ids), plan, options, nan=nan)
    parts = [term.mean() * weights[part] for part, term in terms.items()]
    total = options.ramp * torch.stack(parts).sum() if parts else logits[:0].float().sum()
    return EarlyToolTerms(terms, early_tool_diagnostics(plan, terms), total)


def _prefix_cross_entropy(logits: Tensor, mask: Tensor, plan: EarlyToolPlan, nan: OnNan) -> Term:
    """Cross-entropy at the plan's targets; messages name rows of the batch."""
    wanted = plan.targets != IGNORE_INDEX
    picked = logits[positions_in(mask, wanted, "target").to(logits.device)]
    targets = plan.targets[wanted].to(logits.device)
    term = cross_entropy(picked, targets, nan="skip_row")
    if term.skipped:
        x = picked.detach().to(computing_dtype(picked.dtype))
        bad = ~torch_cross_entropy(x, targets, reduction="none").isfinite()
        rows = plan.numbers[wanted.nonzero()[:, 0]].to(bad.device)
        handle_bad_rows(bad, rows, nan, "logits")
    return term
