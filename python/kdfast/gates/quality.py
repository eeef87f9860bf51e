"""The quality gates: a student must not buy its speed with worse tool calls, or with calls where none is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from kdfast.gates.bootstrap import CONFIDENCE, Floats, drawn_counts
from kdfast.gates.comparable import why_prompts_differ, why_truths_differ
from kdfast.gates.evidence import Evidence, Report, UnusableError, quality
from kdfast.gates.result import GateResult, GateStatus


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """Compares one quality of the two sides, by a paired bootstrap over prompts.

    The gate fails if the quality became worse by more than the limit and the one-sided 95 % bound of that change is
    above 0. For each prompt a report has `[true positives, false positives, false negatives]`, from whose sums the F1
    is computed, or one number, whose mean is taken. Without results per prompt, the two values alone decide.

    Attributes:
        name: the name of the gate, and of the quality in a report.
        worse: whether a fall or a rise is a change for the worse.
        limit_key: the key of the section `gates` that has the largest change for the worse, such as `f1_drop`.
        zero_means: why a candidate with the value 0 fails, whatever the baseline; "" = it does not.
        optional: the gate is skipped, and does not fail, if no report has the quality.
        part: the quality in a report that is a part of this one; "" = none. A reason ends with it if it is not 0. It
            decides nothing: this quality contains it.
    """

    name: str
    worse: Literal["fall", "rise"]
    limit_key: str
    zero_means: str = ""
    optional: bool = False
    part: str = ""

    def __call__(self, evidence: Evidence) -> GateResult:
        """Judges the first report of each side: answers are greedy, so all runs give the same ones."""
        result = self._judged(evidence)
        if result.status == "skipped":
            return result
        return replace(result, reason=result.reason + self._told_part(evidence))

    def _judged(self, evidence: Evidence) -> GateResult:
        if self.optional and not self._measured(evidence):
            return self._result("skipped", f"not_measured: no report has {self.name}")
        try:
            value, per_prompt = quality(evidence.current[0], self.name)
        except UnusableError as error:
            return self._result("failed", f"{error}; measure it, or leave {self.name} out of gates.enabled")
        if self.zero_means and value == 0:
            return self._result("failed", f"{self.name} is 0: {self.zero_means}", value)
        skipped = why_prompts_differ(evidence) or why_truths_differ(evidence)
        if skipped:
            return self._result("skipped", skipped, value)
        try:
            blessed, blessed_per_prompt = quality(evidence.baseline[0], self.name)
            worsening = _worsening(per_prompt, blessed_per_prompt)
        except UnusableError as error:
            return self._result("failed", f"baseline: {error}; bless again", value)
        sign = 1 if self.worse == "fall" else -1
        allowed: float = getattr(evidence.limits, self.limit_key)
        change = sign * (blessed - value)
        limit = blessed - sign * allowed
        status, reason = _judge(change, None if worsening is None else sign * worsening, allowed)
        verb = {"fall": ("fell", "rose"), "rise": ("rose", "fell")}[self.worse][change < 0]
        return self._result(status, f"{verb} by {abs(change):.4f}{reason}", value, limit, blessed)

    def _told_part(self, evidence: Evidence) -> str:
        """Such as `; attempted_call_rate 0.1000 (baseline 0.0500)`; "" if no report has one."""
        value = _value(evidence.current, self.part)
        blessed = _value(evidence.baseline, self.part)
        if not self.part or value is None or not (value or blessed):
            return ""
        return f"; {self.part} {value:.4f}" + ("" if blessed is None else f" (baseline {blessed:.4f})")

    def _measured(self, evidence: Evidence) -> bool:
        reports = (*evidence.current, *evidence.baseline)
        return any((report.get("quality") or {}).get(self.name) is not None for report in reports)

    def _result(
        self,
        status: GateStatus,
        reason: str,
        value: float | None = None,
        limit: float | None = None,
        baseline: float | None = None,
    ) -> GateResult:
        return GateResult(
            name=self.name, status=status, reason=reason, value=value, limit=limit, baseline=baseline
        )


def _value(reports: Sequence[Report], name: str) -> float | None:
    """A quality in the first report; None if it is missing or no number in [0, 1]."""
    try:
        return quality(reports[0], name)[0] if reports else None
    except UnusableError:
        return None


def _judge(change: float, drawn: Floats | None, allowed: float) -> tuple[GateStatus, str]:
    """The status for a change for the worse, and the part of the reason that follows its size."""
    if change <= allowed + 1e-12:
        return "passed", ""
    if drawn is None:
        return "failed", f" > {allowed:g} (no results prompt by prompt: judged by the values alone)"
    bound = float(np.quantile(drawn, 1 - CONFIDENCE))
    if bound > 0:
        return "failed", f" > {allowed:g}, with 95 % confidence by at least {bound:.4f}"
    return "inconclusive", f" > {allowed:g}, but perhaps by chance: more prompts are needed"


def _worsening(current: Sequence[Any] | None, baseline: Sequence[Any] | None) -> Floats | None:
    """Baseline minus current in each draw of the prompts, [draws]; None without results per prompt."""
    if not current or not baseline:
        return None
    sides = [_table(side) for side in (current, baseline)]
    if sides[0].shape != sides[1].shape:
        raise UnusableError(f"results of {len(sides[1])} prompts, the candidate has {len(sides[0])}")
    both = np.concatenate(sides, axis=1)  # [prompts, 2 x columns]
    both = both[np.lexsort(both.T)]  # sort, so that the order of the prompts does not change the draws
    counts, half = drawn_counts(len(both)), both.shape[1] // 2
    return _statistic(counts @ both[:, half:], len(both)) - _statistic(counts @ both[:, :half], len(both))


def _table(per_prompt: Sequence[Any]) -> Floats:
    """The results per prompt as an array: [prompts, 3] counts or [prompts, 1] numbers."""
    try:
        table = np.array(per_prompt, dtype=np.float64)
    except (TypeError, ValueError):
        raise UnusableError("per_prompt must hold one number or three counts a prompt") from None
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or table.shape[1] not in (1, 3) or not np.isfinite(table).all():
        raise UnusableError("per_prompt must hold one finite number or three counts a prompt")
    return table


def _statistic(sums: Floats, prompts: int) -> Floats:
    """The mean, or the F1 of the summed counts (1 if no call was due and none was made); [draws]."""
    if sums.shape[1] == 1:
        return sums[:, 0] / prompts
    right, errors = 2 * sums[:, 0], sums[:, 1] + sums[:, 2]
    total = right + errors
    return np.where(total > 0, right / np.maximum(total, 1), 1.0)
