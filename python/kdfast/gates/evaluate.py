"""Runs every gate on a candidate and a baseline. A failed gate is a result, not an exception."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kdfast.config.gates import GatesConfig
from kdfast.gates.evidence import Evidence, Report, reports_of
from kdfast.gates.paired import PairedDecision
from kdfast.gates.quality import QualityGate
from kdfast.gates.result import GateReport, GateResult
from kdfast.gates.timing import TimingGate
from kdfast.gates.ttfa import ttfa_gate

GATES: dict[str, Callable[[Evidence], GateResult]] = {
    "ttft_p50": TimingGate(name="ttft_p50", trial_metric="ttft", metric="ttft_ms", key="p50"),
    "ttft_p95": TimingGate(name="ttft_p95", trial_metric="ttft", metric="ttft_ms", key="p95"),
    "tps_p50": TimingGate(name="tps_p50", trial_metric="tps", metric="tps", key="p50"),
    "tps_p95": TimingGate(name="tps_p95", trial_metric="tps", metric="tps", key="p5"),
    "ttfa_p95": ttfa_gate,
    "f1": QualityGate(name="f1", worse="fall", limit_key="f1_drop", zero_means="no call was right"),
    "false_call_rate": QualityGate(
        name="false_call_rate", worse="rise", limit_key="false_call_rise", part="attempted_call_rate"
    ),
    # A report without an F1 has no missed calls either: the gate of the F1 says so, once is enough.
    "missed_call_rate": QualityGate(
        name="missed_call_rate",
        worse="rise",
        limit_key="missed_call_rise",
        optional=True,
        part="broken_call_rate",
    ),
}
"""Every gate. To add one, add an entry here and its name in `config/gates.py`."""


def evaluate_speed_gates(
    current: Report | Sequence[Report],
    baseline: Report | Sequence[Report] | None,
    limits: GatesConfig | None = None,
    *,
    allow_cross_hardware: bool = False,
    strict: bool = False,
    paired: Mapping[str, PairedDecision] | None = None,
) -> GateReport:
    """Compares the candidate with the limits and the blessed baseline. Pure: no file, no clock, no state.

    Args:
        current: the candidate's speed report, or a list of reports, one per run.
        baseline: the blessed model's report or baseline (`load_baseline_speed_metrics`), or a list of reports; None =
            there is no baseline.
        limits: the section `gates`; None = its defaults.
        allow_cross_hardware: compare times even if the hardware differs.
        strict: `skipped` and `inconclusive` count as `failed`.
        paired: `PairedTrial.decisions()`, if both models were run interleaved: these judge the times. Without them
            the reports do, and with fewer than `limits.min_runs` reports per side the times are `report_only`.

    Returns:
        One result for each gate in `limits.enabled`. A time that is missing, NaN, zero or infinite fails.

    Raises:
        DataError: `current` or `baseline` is not a speed report.
        ValueError: `current` is None.

    Example:
        >>> metric = {"p5": 90.0, "p50": 100.0, "p95": 110.0}
        >>> report = {
        ...     "metrics": {"ttft_ms": metric, "tps": metric, "ttfa_tokens": {"p95": 21.0}},
        ...     "quality": {"f1": {"value": 0.8}, "false_call_rate": {"value": 0.0}},
        ... }
        >>> result = evaluate_speed_gates(report, None)["ttft_p50"]
        >>> result.status, result.reason
        ('skipped', 'no_baseline')
    """
    limits = limits or GatesConfig()
    evidence = Evidence(
        current=reports_of(current, "current"),
        baseline=reports_of(baseline, "baseline"),
        limits=limits,
        allow_cross_hardware=allow_cross_hardware,
        paired=paired or {},
    )
    if not evidence.current:
        raise ValueError("current: must be a speed report, got None")
    results = [gate(evidence) for name, gate in GATES.items() if name in limits.enabled]
    return GateReport(results=tuple(_strict(one) if strict else one for one in results), strict=strict)


def _strict(result: GateResult) -> GateResult:
    if result.status not in ("skipped", "inconclusive"):
        return result
    return replace(result, status="failed", reason=f"strict: {result.status}: {result.reason}")
