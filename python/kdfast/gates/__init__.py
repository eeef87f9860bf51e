"""The gates decide whether a student may replace the blessed model. Pure functions: numpy only, no torch.

They check its speed, how early it acts, and whether its tool calls are right. `evaluate_speed_gates` compares reports
with the limits and with a blessed baseline. `PairedTrial` judges times from interleaved pairs of runs; it asks for
more pairs when the machine is noisy.

Examples:
    >>> from kdfast.gates import evaluate_speed_gates
    >>> evaluate_speed_gates({"metrics": {}}, None)["ttfa_p95"].reason
    'missing: ttfa_tokens'
"""

from kdfast.config.gates import GATE_NAMES, GatesConfig
from kdfast.exit_codes import GATE_FAILED
from kdfast.gates.baseline import (
    baseline_bundle,
    load_baseline_speed_metrics,
    noise_floor,
    write_baseline,
)
from kdfast.gates.estimate import Estimate
from kdfast.gates.evaluate import GATES, evaluate_speed_gates
from kdfast.gates.paired import PairedDecision, Verdict, decide_paired, planned_pairs
from kdfast.gates.pairs import Pairs
from kdfast.gates.result import GateReport, GateResult
from kdfast.gates.trial import PairedTrial

GateLimits = GatesConfig
"""The limits of the gates: the section `gates` of the config."""

__all__ = [
    "GATES",
    "GATE_FAILED",
    "GATE_NAMES",
    "Estimate",
    "GateLimits",
    "GateReport",
    "GateResult",
    "PairedDecision",
    "PairedTrial",
    "Pairs",
    "Verdict",
    "baseline_bundle",
    "decide_paired",
    "evaluate_speed_gates",
    "load_baseline_speed_metrics",
    "noise_floor",
    "planned_pairs",
    "write_baseline",
]
