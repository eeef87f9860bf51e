"""The gate of the first action: after how many tokens a call that may be acted on is there."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kdfast.gates.evidence import Evidence, Report, UnusableError, number
from kdfast.gates.result import GateResult, GateStatus


def ttfa_gate(evidence: Evidence) -> GateResult:
    """The p95 of the configured TTFA metric against its limit; of several runs the worst.

    It needs no baseline and no equal hardware: tokens are counted, not seconds. A prompt on which no valid call
    ever came counts as infinite, and an infinite p95 fails. Else, where even the shortest correct calls are longer
    than the limit of `ttfa_tokens`, no student could pass, and the gate says so instead.
    """
    metric, limit = evidence.limits.ttfa_metric, evidence.limits.ttfa_p95_tokens
    try:
        value = max(_tokens(report, metric) for report in evidence.current)
    except UnusableError as error:
        return _result("failed", str(error), None, limit)
    if value <= limit:
        return _result("passed", f"{metric} p95 = {value:g}", value, limit)
    if math.isinf(value):
        counts = [_count(report, metric) for report in evidence.current]
        reason = f"{metric} p95 is infinite; prompts without a valid call: {max(counts)}"
        return _result("failed", reason, value, limit)
    shortest = max(_shortest_call(report) for report in evidence.current)
    if metric == "ttfa_tokens" and shortest > limit:
        reason = f"infeasible: the shortest correct calls need p95 = {shortest:g} tokens"
        return _result("skipped", reason, value, limit)
    return _result("failed", f"{metric} p95 = {value:g} > {limit:g}", value, limit)


def _tokens(report: Report, metric: str) -> float:
    value = number(report, metric, "p95")
    if metric != "ttfa_overhead_tokens" and value <= 0:  # an overhead of 0 is the best there is
        raise UnusableError(f"{metric}.p95 must be above 0, got {value:g}")
    if value == -math.inf:
        raise UnusableError(f"{metric}.p95 must be a number of tokens, got {value}")
    return value


def _shortest_call(report: Report) -> float:
    """The p95 of the ground truth's shortest calls, in tokens; 0 where the report has none."""
    shortest = report.get("shortest_call_tokens")
    value = shortest.get("p95") if isinstance(shortest, Mapping) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _count(report: Report, metric: str) -> int:
    infinite = report["metrics"][metric].get("infinite", 0)
    return infinite if isinstance(infinite, int) else 0


def _result(status: GateStatus, reason: str, value: float | None, limit: float) -> GateResult:
    return GateResult(name="ttfa_p95", status=status, reason=reason, value=value, limit=limit, unit="tokens")
