"""The gates of time: time to the first token, and tokens per second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from kdfast.gates.bootstrap import Floats
from kdfast.gates.comparable import why_not_alternating, why_times_differ
from kdfast.gates.evidence import Evidence, UnusableError, positive_number
from kdfast.gates.paired import PairedDecision
from kdfast.gates.result import GateResult, GateStatus

RUNS_P = 0.0025
"""How often each of the four gates of time may fail an unchanged model: together at most 1 %."""
_MOST_SPLITS = 20_000
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class TimingGate:
    """Compares one percentile of the two sides.

    Attributes:
        name: the gate's name.
        trial_metric: the metric's name in a paired trial.
        metric: the metric's name in a report.
        key: the percentile; for tps, where low is slow, the slow tail is p5.
    """

    name: str
    trial_metric: Literal["ttft", "tps"]
    metric: str
    key: str

    def __call__(self, evidence: Evidence) -> GateResult:
        """Judges by the paired trial if there was one, else by the reports."""
        if self.trial_metric in evidence.paired:
            return self._paired(evidence.paired[self.trial_metric])
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
        return limits.ttft_limit_ratio if self.trial_metric == "ttft" else limits.tps_limit_ratio

    def _judge(
        self, evidence: Evidence, current: Sequence[float], baseline: Sequence[float]
    ) -> tuple[GateStatus, str]:
        limit, runs = self._limit(evidence), (len(current), len(baseline))
        sign = 1.0 if self.trial_metric == "ttft" else -1.0
        slow, blessed = (sign * np.log(side) for side in (current, baseline))
        slowdown = float(slow.mean() - blessed.mean())
        ratio = f"{math.exp(slowdown):.3f} times as slow"
        if min(runs) < evidence.limits.min_runs:
            return "report_only", (
                f"{ratio}; {evidence.limits.min_runs} runs a side, or `kdfast gate --blessed`, would decide,"
                f" got {runs[0]} and {runs[1]}"
            )
        not_alternating = why_not_alternating(evidence)
        if not_alternating:
            return "report_only", f"{ratio}; {not_alternating}"
        p_value = _permutation_p_value(slow, blessed)
        within = slowdown <= math.log(limit) + _ROUNDING
        if not within and p_value <= RUNS_P:
            return "failed", f"{ratio}, limit {limit:.3f} (p = {p_value:.3g}, {runs[0]} and {runs[1]} runs)"
        error = math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in (slow, blessed)))
        if within and 2 * error <= math.log(limit):
            return "passed", f"{ratio}, limit {limit:.3f}"
        return (
            "report_only" if self._tail else "inconclusive"
        ), f"{ratio}; the runs differ too much to judge: run more, or use `kdfast gate --blessed`"

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
            limit = baseline * limit_ratio if self.trial_metric == "ttft" else baseline / limit_ratio
        unit = "ms" if self.trial_metric == "ttft" else "tokens/s"
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
    """The geometric mean, because `_judge` compares means of logarithms."""
    return values[0] if len(values) == 1 else math.exp(float(np.mean(np.log(values))))


def _permutation_p_value(current: Floats, baseline: Floats) -> float:
    """The p value of a permutation test: the share of random splits with a difference at least as large.

    A split puts the runs on the two sides at random. If there are at most 20,000 splits, all are tried; else 20,000
    are drawn with a fixed seed. The real split is then counted as one more, so that p is never too small.
    """
    runs = np.concatenate([current, baseline])
    size, total = len(current), math.comb(len(runs), len(current))
    seen = runs[:size].sum() - _ROUNDING
    if total <= _MOST_SPLITS:
        splits = np.array(list(combinations(range(len(runs)), size)))  # [splits, size] places in `runs`
        return float((runs[splits].sum(axis=1) >= seen).mean())
    drawn = np.random.default_rng(0).permuted(np.tile(np.sort(runs), (_MOST_SPLITS, 1)), axis=1)[:, :size]
    return float((1 + (drawn.sum(axis=1) >= seen).sum()) / (1 + _MOST_SPLITS))
