"""How long an answer the student is to be expected to give, from its log-odds of ending it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kdfast.losses.latency.length_plan import LengthPlan
from kdfast.losses.rows.numerics import computing_dtype

LOG_P_FLOOR = -60.0
"""Below this log p the geometric tail is its limit: p itself would soon leave fp32."""


def expected_length(log_odds: Tensor, plan: LengthPlan, max_new_tokens: int) -> Tensor:
    """Expected length of the student's answer: E = sum_{t<=L} S_t + S_{L+1} A_R.

    S_t is the probability of not having stopped before token t, from the EOS probabilities p at the plan's gate.
    After L the student is taken to stop with its p_L at every token, up to R = max(max_new_tokens - L, 0) tokens
    more: A_R = (1 - (1-p_L)^R) / p_L.

    Args:
        log_odds: [M] finite EOS log-odds at the positions of `plan.gate`, row-major.
        plan: the batch's plan.
        max_new_tokens: where generation is cut.

    Returns:
        [R] for the counted rows, in tokens, differentiable; fp32 (fp64 for fp64 log-odds).

    Raises:
        ValueError: there are not as many log-odds as gate positions.

    Example:
        >>> from kdfast.losses.latency.length_plan import length_plan
        >>> batch = {"labels": torch.tensor([[5, 2]]), "response_start": torch.tensor([1])}
        >>> plan = length_plan(batch | {"response_length": torch.tensor([2])}, eos_ids=[2])
        >>> expected_length(torch.zeros(1), plan, max_new_tokens=4)  # 1 + 1 + 1/2 + 1/4
        tensor([2.7500])
    """
    d, steps = _matrix(log_odds, plan)
    survival = _log_stay(d, steps).cumsum(1).exp()
    remaining = (max_new_tokens - plan.counted_lengths.to(d.device)).clamp(min=0).to(d.dtype)
    # S is constant between two gates: it counts as often as there are tokens up to the next one
    until_next = (steps[:, 1:] - steps[:, :-1]) * (steps[:, :-1] > 0)
    first = torch.where(steps > 0, steps, torch.iinfo(steps.dtype).max).amin(1)
    weights = torch.cat([until_next.to(d.dtype), _geometric_tail(d[:, -1], remaining)[:, None]], 1)
    return first.to(d.dtype) + (survival * weights).sum(1)


def log_stop_by(log_odds: Tensor, plan: LengthPlan, further: Tensor) -> Tensor:
    """Log of the probability that the student ends its answer by itself within L + further tokens.

    After L it is taken to stop with its p_L at every token, as in `expected_length`. Summed over the stopping times in
    the log domain, so that a student that practically never stops still has a finite value and a gradient.

    Args:
        log_odds: [M] as in `expected_length`.
        plan: the batch's plan.
        further: [R] int64, at least 0.

    Returns:
        [R], differentiable.

    Example:
        >>> from kdfast.losses.latency.length_plan import length_plan
        >>> batch = {"labels": torch.tensor([[5, 2]]), "response_start": torch.tensor([1])}
        >>> plan = length_plan(batch | {"response_length": torch.tensor([2])}, eos_ids=[2])
        >>> log_stop_by(torch.zeros(1), plan, torch.tensor([1])).exp()  # 1/2 + 1/4
        tensor([0.7500])
    """
    d, steps = _matrix(log_odds, plan)
    log_survival = _log_stay(d, steps)[:, :-1].cumsum(1)
    log_survival = torch.cat([torch.zeros_like(d[:, :1]), log_survival], 1)  # before each gate
    log_stop = logsigmoid(d[:, :-1]).masked_fill(steps[:, :-1] == 0, -math.inf)
    tries = further.to(d.device, d.dtype) + 1
    log_p = log_survival + torch.cat([log_stop, _log_within(d[:, -1], tries)[:, None]], 1)
    most = log_p.detach().amax(1)  # taken off first, or fp32 would round the shares of the gradient
    return most + (log_p - most[:, None]).logsumexp(1)


def _matrix(log_odds: Tensor, plan: LengthPlan) -> tuple[Tensor, Tensor]:
    """Log-odds [R,W] in the computing dtype, 0 in the padding, and the plan's steps beside them."""
    d = plan.layout.spread(log_odds.to(computing_dtype(log_odds.dtype)), 0.0)
    return d, plan.steps.to(d.device)


def _log_stay(d: Tensor, steps: Tensor) -> Tensor:
    """log(1-p) at each gate, 0 in the padding."""
    return logsigmoid(-d).masked_fill(steps == 0, 0.0)


def _geometric_tail(d: Tensor, remaining: Tensor) -> Tensor:
    """A_R = (1 - (1-p)^R) / p for R = remaining, and R where p is too small to divide by."""
    rare = logsigmoid(d) < LOG_P_FLOOR
    usual = torch.where(rare, 0.0, d)  # the branch not taken must have a harmless gradient too
    tail = -torch.expm1(remaining * logsigmoid(-usual)) * (-logsigmoid(usual)).exp()
    return torch.where(rare, remaining, tail)


def _log_within(d: Tensor, tries: Tensor) -> Tensor:
    """log(1 - (1-p)^n) for n = tries >= 1, and log(n p) where p is too small."""
    rare = logsigmoid(d) < LOG_P_FLOOR
    usual = torch.where(rare, 0.0, d)
    within = (-torch.expm1(tries * logsigmoid(-usual))).log()
    return torch.where(rare, logsigmoid(d) + tries.log(), within)
