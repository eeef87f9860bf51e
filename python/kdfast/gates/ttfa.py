"""The gate of the first action: how many tokens until there is a valid tool call."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kdfast.gates.evidence import Evidence, Report, UnusableError, number
from kdfast.gates.result import GateResult, GateStatus


def ttfa_gate(evidence: Evidence) -> GateResult:
    """Compares the p95 of the configured TTFA metric with its limit; of several runs, the worst counts.

    It needs no baseline and no equal hardware: it counts tokens, not seconds. A prompt that never got a valid call
    counts as infinite; an infinite p95 fails. But if the p95 of the shortest correct calls is above the limit of
    `ttfa_tokens`, no student could pass: the gate is then skipped as `infeasible`, also if the p95 is infinite.
    Missed calls have a gate of their own.
    """
    metric, limit = evidence.limits.ttfa_metric, evidence.limits.ttfa_p95_tokens
    try:
        value = max(_tokens(report, metric) for report in evidence.current)
    except UnusableError as error:
        return _result("failed", str(error), None, limit)
    if value <= limit:
        return _result("passed", f"{metric} p95 = {value:g}", value, limit)
    shortest = max(_shortest_call(report) for report in evidence.current)
    if metric == "ttfa_tokens" and shortest > limit:
        reason = (
            f"infeasible: the shortest correct calls need p95 = {shortest:g} tokens, more than the limit {limit:g}; "
            "set gates.ttfa_metric=ttfa_overhead_tokens"
        )
        return _result("skipped", reason, value, limit)
    if math.isinf(value):
        counts = [_count(report, metric) for report in evidence.current]
        reason = f"{metric} p95 is infinite; prompts without a valid call: {max(counts)}"
        return _result("failed", reason, value, limit)
    return _result("failed", f"{metric} p95 = {value:g} > {limit:g}", value, limit)


def _tokens(report: Report, metric: str) -> float:
    value = number(report, metric, "p95")
    if metric != "ttfa_overhead_tokens" and value <= 0:  # an overhead may be 0 or less
        raise UnusableError(f"{metric}.p95 must be above 0, got {value:g}")
    if value == -math.inf:
        raise UnusableError(f"{metric}.p95 must be a number of tokens, got {value}")
    return value


def _shortest_call(report: Report) -> float:
    """The p95 of the shortest correct calls, in tokens; 0 if the report does not have it."""
    shortest = report.get("shortest_call_tokens")
    value = shortest.get("p95") if isinstance(shortest, Mapping) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _count(report: Report, metric: str) -> int:
    infinite = report["metrics"][metric].get("infinite", 0)
    return infinite if isinstance(infinite, int) else 0


def _result(status: GateStatus, reason: str, value: float | None, limit: float) -> GateResult:
    return GateResult(name="ttfa_p95", status=status, reason=reason, value=value, limit=limit, unit="tokens")
