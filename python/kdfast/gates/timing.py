"""The gates of time: to the first token, and tokens per second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from kdfast.gates.bootstrap import Floats
from kdfast.gates.comparable import why_not_by_turns, why_times_differ
from kdfast.gates.evidence import Evidence, UnusableError, positive_number
from kdfast.gates.paired import PairedDecision
from kdfast.gates.result import GateResult, GateStatus

RUNS_P = 0.0025
"""Each of the four gates of time fails an unchanged model at most so often, all of them together in 1 %."""
_MOST_SPLITS = 20_000
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class TimingGate:
    """One number of both sides.

    Attributes:
        name: of the gate.
        of: `ttft` or `tps`, as a paired trial calls it.
        metric: as a report calls it.
        key: the percentile; of tps, where low is bad, the slow tail is a low one.
    """

    name: str
    of: Literal["ttft", "tps"]
    metric: str
    key: str

    def __call__(self, evidence: Evidence) -> GateResult:
        """Judges by the paired trial where there was one, else by the reports."""
        if self.of in evidence.paired:
            return self._paired(evidence.paired[self.of])
        try:
            current = [positive_number(report, self.metric, self.key) for report in evidence.current]
        except UnusableError as error:
            return self._result("failed", str(error))
        skipped = why_times_differ(evidence)
        value = _mean(current)
        if skipped:
            return self._result("skipped", skipped, value)
        try:
            baseline = [positive_number(report, self.metric, self.key) for report in evidence.baseline]
        except UnusableError as error:
            return self._result("failed", f"baseline: {error}; bless again", value)
        status, reason = self._judge(evidence, current, baseline)
        return self._result(status, reason, value, _mean(baseline), self._limit(evidence))

    @property
    def _tail(self) -> bool:
        return self.key != "p50"

    def _limit(self, evidence: Evidence) -> float:
        """The largest slowdown that passes, as a ratio above 1."""
        limits = evidence.limits
        return limits.ttft_limit_ratio if self.of == "ttft" else limits.tps_limit_ratio

    def _judge(
        self, evidence: Evidence, current: Sequence[float], baseline: Sequence[float]
    ) -> tuple[GateStatus, str]:
        limit, runs = self._limit(evidence), (len(current), len(baseline))
        sign = 1.0 if self.of == "ttft" else -1.0
        slow, blessed = (sign * np.log(side) for side in (current, baseline))
        slowdown = float(slow.mean() - blessed.mean())
        ratio = f"{math.exp(slowdown):.3f} times as slow"
        if min(runs) < evidence.limits.min_runs:
            return "report_only", (
                f"{ratio}; {evidence.limits.min_runs} runs a side, or `kdfast gate`, would decide,"
                f" got {runs[0]} and {runs[1]}"
            )
        apart = why_not_by_turns(evidence)
        if apart:
            return "report_only", f"{ratio}; {apart}"
        p_value = _exchange_p(slow, blessed)
        within = slowdown <= math.log(limit) + _ROUNDING
        if not within and p_value <= RUNS_P:
            return "failed", f"{ratio}, limit {limit:.3f} (p = {p_value:.3g}, {runs[0]} and {runs[1]} runs)"
        error = math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in (slow, blessed)))
        if within and 2 * error <= math.log(limit):
            return "passed", f"{ratio}, limit {limit:.3f}"
        return (
            "report_only" if self._tail else "inconclusive"
        ), f"{ratio}, runs too unlike to judge; run more, or `kdfast gate`"

    def _paired(self, decision: PairedDecision) -> GateResult:
        verdict = decision.p95 if self._tail else decision.median
        statuses: dict[str, GateStatus] = {
            "pass": "passed",
            "fail": "failed",
            "need_more": "inconclusive",
            "inconclusive": "inconclusive",
            "report_only": "report_only",
        }
        return GateResult(
            name=self.name,
            status=statuses[verdict.status],
            reason=f"paired: {verdict.reason}",
            value=verdict.estimate.ratio if verdict.estimate else None,
            limit=decision.limit_ratio,
            baseline=1.0,
            unit="x slower",
        )

    def _result(
        self,
        status: GateStatus,
        reason: str,
        value: float | None = None,
        baseline: float | None = None,
        limit_ratio: float = 1.0,
    ) -> GateResult:
        limit = None
        if baseline is not None:
            limit = baseline * limit_ratio if self.of == "ttft" else baseline / limit_ratio
        unit = "ms" if self.of == "ttft" else "tokens/s"
        return GateResult(
            name=self.name,
            status=status,
            reason=reason,
            value=value,
            limit=limit,
            baseline=baseline,
            unit=unit,
        )


def _mean(values: Sequence[float]) -> float:
    """The geometric mean: what ratios are formed from."""
    return values[0] if len(values) == 1 else math.exp(float(np.mean(np.log(values))))


def _exchange_p(current: Floats, baseline: Floats) -> float:
    """How often so large a difference of means comes up when the runs are dealt to the sides by chance.

    Every deal is tried where there are at most 20,000, else so many drawn with a fixed seed (each counted with
    the one that was seen, which keeps the answer on the safe side).
    """
    runs = np.concatenate([current, baseline])
    size, total = len(current), math.comb(len(runs), len(current))
    seen = runs[:size].sum() - _ROUNDING
    if total <= _MOST_SPLITS:
        deals = np.array(list(combinations(range(len(runs)), size)))
        return float((runs[deals].sum(axis=1) >= seen).mean())
    deals = np.random.default_rng(0).permuted(np.tile(np.sort(runs), (_MOST_SPLITS, 1)), axis=1)[:, :size]
    return float((1 + (deals.sum(axis=1) >= seen).sum()) / (1 + _MOST_SPLITS))
