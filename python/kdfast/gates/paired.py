"""The paired decision: is the candidate slower than the blessed model, beyond the noise of this machine?

Both models run on the same prompts, interleaved in random order, so that a drift of the machine slows both. The gate
judges the median of candidate / blessed over the pairs, and its one-sided 95 % bounds. The bounds come from drawing
the prompts again and again; a drawn prompt brings all its pairs.

- How many pairs: n = (50 sd)^2, at least `min_pairs`; sd is the standard deviation of the log ratio over the pairs so
  far. For it, outliers are pulled in (`spread`): if the scheduler delays one run of 20 by a second, the plain sd would
  ask for a thousand pairs, though the median hardly moves. The plan is made anew after each batch of pairs, and asks
  for at most twice as many as there are.
- A block of n pairs is *beyond* the limit if the median ratio is above the limit **and** its lower bound is above 1
  (no change). If the first block is beyond, one more block of new pairs is run. Only if that is beyond too, the gate
  fails.
- If `max_pairs` is smaller than n, the noise is too large for this rule. Then the bounds themselves must lie above
  (fail) or below (pass) the limit; else the result is `inconclusive`.
- The ratio of the p95s is judged by the same rule if it is *tight*: at least 100 pairs, and each bound within a factor
  of the limit from the estimate. If not, it is `report_only`.

`bench/gates.py` simulates noise of 3, 10 and 30 %, equal and unequal prompts, drift and spikes (results in
bench/results/gates.md). An unchanged model fails in 0.2 % of the runs at worst. A model that is 10 % slower fails in
91 % at worst; one that is 15 % slower (simulated with spikes only) always. Tried and dropped:

- n = (46 sd)^2: a model that is 10 % slower fails in 90 % on average, but in 85 % at worst;
- a lower bound that must lie above the limit itself, not above 1: it fails in a third;
- a p95 judged on 20 pairs: up to a fifth of the models that are 10 % slower pass; by the rule above, 0.3 % at worst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdfast.gates.estimate import Estimate, estimate_slowdown
from kdfast.gates.pairs import Pairs

PAIRS_FACTOR = 50.0
"""With n = (50 sd)^2 the standard error of the median is 0.025: +5 % is 1.95 of them above +0 %, 1.86 below +10 %."""
MIN_PROMPTS = 10
"""With fewer prompts the result says too little about other prompts."""
MIN_TAIL_PAIRS = 100
"""With fewer pairs, fewer than five lie above the p95."""

Status = Literal["pass", "fail", "need_more", "inconclusive", "report_only"]
Block = Literal["first", "confirmation"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision about one ratio; `estimate` is None if there is none (yet)."""

    status: Status
    reason: str
    estimate: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class PairedDecision:
    """The decision from the pairs so far.

    Attributes:
        median: the verdict on the median of the pairs' ratios; never `report_only`.
        p95: the verdict on the ratio of the p95s; never `inconclusive`.
        need_pairs: how many more pairs to run; 0 = decided.
        block: the block of those pairs; pairs of the first block must not be used again for the confirmation.
        pairs: the number of pairs in the first block.
        planned_pairs: how many pairs the noise of the machine demands.
        limit_ratio: the largest ratio that passes.
    """

    median: Verdict
    p95: Verdict
    need_pairs: int
    block: Block
    pairs: int
    planned_pairs: int
    limit_ratio: float

    @property
    def status(self) -> Status:
        """Median and p95 together: `need_more` while pairs are needed, else `fail` if one fails, else the median's."""
        if self.need_pairs:
            return "need_more"
        return "fail" if "fail" in (self.median.status, self.p95.status) else self.median.status


def spread(pairs: Pairs) -> float:
    """The standard deviation of the log ratio, with outliers pulled in.

    A ratio that is further from the median than three robust standard deviations is moved to that distance. The robust
    one comes from the median distance to the median, which outliers do not change.

    Args:
        pairs: at least two valid pairs.

    Example:
        >>> times = np.linspace(90.0, 110.0, 20)
        >>> quiet = Pairs(np.arange(20), times[::-1], times)
        >>> held_up = Pairs(np.arange(20), np.append(times[:0:-1], 9e9), times)
        >>> round(spread(quiet), 2), round(spread(held_up), 2)
        (0.12, 0.16)
    """
    ratios = pairs.log_ratios()
    middle = np.median(ratios)
    reach = 3 * 1.4826 * np.median(np.abs(ratios - middle))  # three standard deviations if ratios are normal
    if reach > 0:  # 0 = more than half of the ratios are equal: then nothing is an outlier
        ratios = np.clip(ratios, middle - reach, middle + reach)
    return float(np.std(ratios, ddof=1))


def planned_pairs(sd: float, limit_ratio: float = 1.05, *, min_pairs: int = 20) -> int:
    """How many pairs are needed to tell a slowdown of twice the limit from no change.

    Args:
        sd: the standard deviation of the log ratio over the pairs (`spread`).
        limit_ratio: the limit; below 1.05 more pairs are needed, above 1.05 as many as at 1.05.
        min_pairs: the smallest number to return.

    Example:
        >>> planned_pairs(0.14), planned_pairs(0.42), planned_pairs(0.0)
        (50, 441, 20)
    """
    factor = PAIRS_FACTOR * max(1.0, math.log(1.05) / math.log(limit_ratio))
    return max(min_pairs, math.ceil((factor * sd) ** 2))


def decide_paired(
    first: Pairs,
    confirmation: Pairs | None = None,
    *,
    limit_ratio: float = 1.05,
    min_pairs: int = 20,
    max_pairs: int = 1000,
    seed: int = 0,
) -> PairedDecision:
    """Decides from the pairs so far, or says how many more it needs. Pure: equal pairs give an equal decision.

    Args:
        first: all pairs of the first block so far.
        confirmation: all pairs of the confirmation so far; none of them may also be in `first`.
        limit_ratio: the largest median of candidate / blessed that passes; above 1.
        min_pairs: how many pairs to run before the noise is estimated (the pilot).
        max_pairs: the largest number of pairs in a block.
        seed: the seed of the bootstrap's draws.

    Returns:
        The decision. While its `need_pairs` is above 0, run that many pairs and call this again with all pairs. A time
        that is NaN, infinite, 0 or negative fails at once.

    Raises:
        ValueError: `limit_ratio` is not a number above 1.

    Example:
        >>> times = np.linspace(90.0, 110.0, 20)[:, None]
        >>> decide_paired(Pairs.from_rounds(times * 1.02, times)).status
        'pass'
        >>> slow = Pairs.from_rounds(times * 1.15, times)
        >>> decision = decide_paired(slow)
        >>> decision.status, decision.block, decision.need_pairs
        ('need_more', 'confirmation', 20)
        >>> decide_paired(slow, slow).status
        'fail'
    """
    if not (math.isfinite(limit_ratio) and limit_ratio > 1):
        raise ValueError(f"limit_ratio: must be a number above 1, got {limit_ratio}")
    second = Pairs.none() if confirmation is None else confirmation
    block = _FirstBlock(first, min_pairs, limit_ratio, max_pairs)
    problem = first.problem() or second.problem()
    if problem:
        broken = Verdict(status="fail", reason=problem)
        return block.decided(broken, broken)
    if len(first) < min_pairs:
        return block.more(min_pairs - len(first), "the pilot")
    if first.prompts < MIN_PROMPTS:
        reason = f"at least {MIN_PROMPTS} prompts are needed, got {first.prompts}"
        return block.decided(
            Verdict(status="inconclusive", reason=reason), Verdict(status="report_only", reason=reason)
        )
    if len(first) < min(block.planned, max_pairs):
        more = min(block.planned, max_pairs) - len(first)
        return block.more(min(more, 2 * len(first)), "the spread of the pairs")
    return _judge(block, second, seed)


class _FirstBlock:
    """The pairs of the first block, how many are planned, and the rules that follow from that."""

    def __init__(self, pairs: Pairs, min_pairs: int, limit_ratio: float, max_pairs: int) -> None:
        self.pairs, self.limit, self.max_pairs = pairs, limit_ratio, max_pairs
        self.planned = min_pairs
        if len(pairs) >= max(2, min_pairs) and pairs.problem() is None:
            self.planned = planned_pairs(spread(pairs), limit_ratio, min_pairs=min_pairs)
        # `max_pairs` allows fewer pairs than planned: then the bounds are compared with the limit itself.
        self.capped = len(pairs) < self.planned

    def beyond(self, estimate: Estimate) -> bool:
        return estimate.beyond(self.limit, self.limit if self.capped else 1.0)

    def within(self, estimate: Estimate) -> bool:
        return (estimate.upper if self.capped else estimate.ratio) <= self.limit

    def tight(self, tail: Estimate) -> bool:
        return len(self.pairs) >= MIN_TAIL_PAIRS and tail.tight(self.limit)

    def decided(
        self, median: Verdict, p95: Verdict, need_pairs: int = 0, block: Block = "first"
    ) -> PairedDecision:
        return PairedDecision(
            median=median,
            p95=p95,
            need_pairs=need_pairs,
            block=block,
            pairs=len(self.pairs),
            planned_pairs=self.planned,
            limit_ratio=self.limit,
        )

    def more(self, need_pairs: int, why: str, block: Block = "first") -> PairedDecision:
        undecided = Verdict(status="need_more", reason=f"{why}: {need_pairs} more pairs are needed")
        return self.decided(undecided, undecided, need_pairs, block)


def _judge(block: _FirstBlock, second: Pairs, seed: int) -> PairedDecision:
    """The decision when the first block has as many pairs as planned, or as `max_pairs` allows."""
    median, tail = estimate_slowdown(block.pairs, seed=seed)
    median_beyond = block.beyond(median)
    tail_beyond = block.tight(tail) and tail.beyond(block.limit)
    if not (median_beyond or block.within(median) or block.capped or len(block.pairs) >= block.max_pairs):
        more = min(math.ceil(len(block.pairs) / 2), block.max_pairs - len(block.pairs))
        return block.more(more, f"above the limit, but not surely above 1: {median}")
    if not (median_beyond or tail_beyond):
        return block.decided(_median_by_first(block, median), _tail_by_first(block, tail))
    if len(second) < len(block.pairs):
        return block.more(
            len(block.pairs) - len(second), f"to confirm {median} on fresh pairs", "confirmation"
        )
    median_again, tail_again = estimate_slowdown(second, seed=seed + 1)
    return block.decided(
        _median_by_both(block, median, median_again) if median_beyond else _median_by_first(block, median),
        _tail_by_both(block, tail, tail_again) if tail_beyond else _tail_by_first(block, tail),
        block="confirmation",
    )


def _median_by_first(block: _FirstBlock, median: Estimate) -> Verdict:
    if block.within(median):
        return Verdict(status="pass", reason=f"within the limit: {median}", estimate=median)
    return Verdict(
        status="inconclusive",
        reason=f"too noisy for {len(block.pairs)} pairs: {median}; raise gates.max_pairs or quiet the machine",
        estimate=median,
    )


def _median_by_both(block: _FirstBlock, median: Estimate, again: Estimate) -> Verdict:
    both = f"{median}, then {again} on fresh pairs"
    if block.beyond(again):
        return Verdict(status="fail", reason=f"confirmed: {both}", estimate=median)
    if block.within(again):
        return Verdict(status="pass", reason=f"not confirmed: {both}", estimate=again)
    return Verdict(status="inconclusive", reason=f"half confirmed: {both}; run it again", estimate=again)


def _tail_by_first(block: _FirstBlock, tail: Estimate) -> Verdict:
    if block.tight(tail) and tail.ratio <= block.limit:
        return Verdict(status="pass", reason=f"within the limit: {tail}", estimate=tail)
    return Verdict(status="report_only", reason=f"too uncertain to judge: {tail}", estimate=tail)


def _tail_by_both(block: _FirstBlock, tail: Estimate, again: Estimate) -> Verdict:
    both = f"{tail}, then {again} on fresh pairs"
    if not block.tight(again):
        return Verdict(status="report_only", reason=f"too uncertain to confirm: {both}", estimate=tail)
    if again.beyond(block.limit):
        return Verdict(status="fail", reason=f"confirmed: {both}", estimate=tail)
    return Verdict(status="pass", reason=f"not confirmed: {both}", estimate=again)
