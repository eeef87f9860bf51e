"""The paired decision: is the candidate slower than the blessed model, beyond the noise of this machine?

Both models run on the same prompts, interleaved (random AB/BA order), so that a drift of the machine meets both.
What is judged is the median over the pairs of candidate / blessed, and its one-sided 95 % bound: prompts are drawn
again and again, with all their pairs and both arms together.

- How many pairs: n = (50 sd)^2, sd of the log ratio over the pairs so far, at least `min_pairs`. Outliers are pulled
  in for that (`spread`): one run of 20 that the scheduler held up by a second would ask for a thousand pairs, and
  hardly moves a median. Planned again at every look, each asking for at most twice what is there.
- A block of n pairs is *beyond* when the median ratio is above the limit **and** its lower bound is above 1 (no
  change). A first block that is beyond is run again on fresh pairs, once; only a second block beyond fails.
- At `max_pairs`, with more planned, only a bound on the right side of the limit itself decides; else `inconclusive`.
- The ratio of the p95s is judged by the same rule where it is *tight*: at least 100 pairs, and both bounds at most
  the limit away from the estimate. Elsewhere it is `report_only`.

Simulated (`bench/gates.py`, figures in bench/results/gates.md; noise of 3, 10, 30 %, equal and unequal prompts, drift,
spikes): an unchanged model fails in 0.2 % of the runs at worst, a true +10 % in 91 % at worst; +15 %, simulated with
spikes only, always. What was tried and dropped: n = (46 sd)^2 catches 90 % on average, but 85 % in one of the worlds; a
lower bound that must lie above the limit itself catches a third; a p95 judged on 20 pairs passes up to a fifth of the
models that are 10 % slower, judged as above 0.3 % at worst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdfast.gates.estimate import Estimate, estimate_slowdown
from kdfast.gates.pairs import Pairs

PAIRS_FACTOR = 50.0
"""Gives the median a standard error of 0.025: +5 % is 1.95 of them from no change, and 1.86 from +10 %."""
MIN_PROMPTS = 10
"""Fewer prompts say too little about others."""
MIN_TAIL_PAIRS = 100
"""Fewer pairs have less than five beyond the p95."""

Status = Literal["pass", "fail", "need_more", "inconclusive", "report_only"]
Block = Literal["first", "confirmation"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of one ratio; `estimate` is None where it could not be formed (yet)."""

    status: Status
    reason: str
    estimate: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class PairedDecision:
    """What the pairs so far say.

    Attributes:
        median: of the median paired ratio; never `report_only`.
        p95: of the ratio of the p95s; never `inconclusive`.
        need_pairs: how many more pairs to run; 0 = decided.
        block: where those pairs belong; the confirmation's must be fresh ones.
        pairs: in the first block.
        planned_pairs: the number that the spread of the pairs asks for.
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
        """Of both together: `need_more` while pairs are asked for, else `fail` if one of them fails."""
        if self.need_pairs:
            return "need_more"
        return "fail" if "fail" in (self.median.status, self.p95.status) else self.median.status


def spread(pairs: Pairs) -> float:
    """The standard deviation of the log ratio, outliers pulled in to three robust ones from the median.

    Args:
        pairs: at least two sound ones.

    Example:
        >>> times = np.linspace(90.0, 110.0, 20)
        >>> quiet = Pairs(np.arange(20), times[::-1], times)
        >>> held_up = Pairs(np.arange(20), np.append(times[:0:-1], 9e9), times)
        >>> round(spread(quiet), 2), round(spread(held_up), 2)
        (0.12, 0.16)
    """
    ratios = pairs.log_ratios()
    middle = np.median(ratios)
    reach = 3 * 1.4826 * np.median(np.abs(ratios - middle))  # of a normal spread: three standard deviations
    if reach > 0:  # 0 = more than half of them are equal: then nothing is an outlier
        ratios = np.clip(ratios, middle - reach, middle + reach)
    return float(np.std(ratios, ddof=1))


def planned_pairs(sd: float, limit_ratio: float = 1.05, *, min_pairs: int = 20) -> int:
    """How many pairs tell twice the limit from no change.

    Args:
        sd: standard deviation of the log ratio over the pairs (`spread`).
        limit_ratio: the limit; a tighter one than 1.05 asks for more pairs, a looser one not for fewer.
        min_pairs: the least.

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
    """Decides from the pairs so far, or says how many more it needs. Pure: equal pairs, equal answer.

    Args:
        first: the first block, all of it so far.
        confirmation: the pairs run after a decision asked for a confirmation; they must be fresh.
        limit_ratio: the largest median of candidate / blessed that passes, above 1.
        min_pairs: pairs of the pilot.
        max_pairs: the most in a block.
        seed: of the bootstrap's draws.

    Returns:
        The decision; while its `need_pairs` is above 0, run that many pairs and ask again. A time that is
        NaN, infinite, 0 or below fails at once.

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
    look = _Look(first, min_pairs, limit_ratio, max_pairs)
    problem = first.problem() or second.problem()
    if problem:
        broken = Verdict(status="fail", reason=problem)
        return look.decided(broken, broken)
    if len(first) < min_pairs:
        return look.more(min_pairs - len(first), "the pilot")
    if first.prompts < MIN_PROMPTS:
        reason = f"at least {MIN_PROMPTS} prompts are needed, got {first.prompts}"
        return look.decided(
            Verdict(status="inconclusive", reason=reason), Verdict(status="report_only", reason=reason)
        )
    if len(first) < min(look.planned, max_pairs):
        more = min(look.planned, max_pairs) - len(first)
        return look.more(min(more, 2 * len(first)), "the spread of the pairs")
    return _judge(look, second, seed)


class _Look:
    """One look at a first block: how large it is, how large it should be."""

    def __init__(self, first: Pairs, min_pairs: int, limit_ratio: float, max_pairs: int) -> None:
        self.first, self.limit, self.max_pairs = first, limit_ratio, max_pairs
        self.planned = min_pairs
        if len(first) >= max(2, min_pairs) and first.problem() is None:
            self.planned = planned_pairs(spread(first), limit_ratio, min_pairs=min_pairs)
        # With fewer pairs than planned (the cap), only a bound beyond the limit itself will do.
        self.capped = len(first) < self.planned

    def beyond(self, estimate: Estimate) -> bool:
        return estimate.beyond(self.limit, self.limit if self.capped else 1.0)

    def within(self, estimate: Estimate) -> bool:
        return (estimate.upper if self.capped else estimate.ratio) <= self.limit

    def tight(self, tail: Estimate) -> bool:
        return len(self.first) >= MIN_TAIL_PAIRS and tail.tight(self.limit)

    def decided(
        self, median: Verdict, p95: Verdict, need_pairs: int = 0, block: Block = "first"
    ) -> PairedDecision:
        return PairedDecision(
            median=median,
            p95=p95,
            need_pairs=need_pairs,
            block=block,
            pairs=len(self.first),
            planned_pairs=self.planned,
            limit_ratio=self.limit,
        )

    def more(self, need_pairs: int, why: str, block: Block = "first") -> PairedDecision:
        open_ = Verdict(status="need_more", reason=f"{why}: {need_pairs} more pairs are needed")
        return self.decided(open_, open_, need_pairs, block)


def _judge(look: _Look, second: Pairs, seed: int) -> PairedDecision:
    """The decision when the first block is as large as planned, or capped."""
    median, tail = estimate_slowdown(look.first, seed=seed)
    median_beyond = look.beyond(median)
    tail_beyond = look.tight(tail) and tail.beyond(look.limit)
    if not (median_beyond or look.within(median) or look.capped or len(look.first) >= look.max_pairs):
        more = min(math.ceil(len(look.first) / 2), look.max_pairs - len(look.first))
        return look.more(more, f"above the limit, but not surely above 1: {median}")
    if not (median_beyond or tail_beyond):
        return look.decided(_median_alone(look, median), _tail_alone(look, tail))
    if len(second) < len(look.first):
        return look.more(len(look.first) - len(second), f"to confirm {median} on fresh pairs", "confirmation")
    median_again, tail_again = estimate_slowdown(second, seed=seed + 1)
    return look.decided(
        _median_twice(look, median, median_again) if median_beyond else _median_alone(look, median),
        _tail_twice(look, tail, tail_again) if tail_beyond else _tail_alone(look, tail),
        block="confirmation",
    )


def _median_alone(look: _Look, median: Estimate) -> Verdict:
    if look.within(median):
        return Verdict(status="pass", reason=f"within the limit: {median}", estimate=median)
    return Verdict(
        status="inconclusive",
        reason=f"too noisy for {len(look.first)} pairs: {median}; raise gates.max_pairs or quiet the machine",
        estimate=median,
    )


def _median_twice(look: _Look, median: Estimate, again: Estimate) -> Verdict:
    both = f"{median}, then {again} on fresh pairs"
    if look.beyond(again):
        return Verdict(status="fail", reason=f"confirmed: {both}", estimate=median)
    if look.within(again):
        return Verdict(status="pass", reason=f"not confirmed: {both}", estimate=again)
    return Verdict(status="inconclusive", reason=f"half confirmed: {both}; run it again", estimate=again)


def _tail_alone(look: _Look, tail: Estimate) -> Verdict:
    if look.tight(tail) and tail.ratio <= look.limit:
        return Verdict(status="pass", reason=f"within the limit: {tail}", estimate=tail)
    return Verdict(status="report_only", reason=f"too uncertain to judge: {tail}", estimate=tail)


def _tail_twice(look: _Look, tail: Estimate, again: Estimate) -> Verdict:
    both = f"{tail}, then {again} on fresh pairs"
    if not look.tight(again):
        return Verdict(status="report_only", reason=f"too uncertain to confirm: {both}", estimate=tail)
    if again.beyond(look.limit):
        return Verdict(status="fail", reason=f"confirmed: {both}", estimate=tail)
    return Verdict(status="pass", reason=f"not confirmed: {both}", estimate=again)
