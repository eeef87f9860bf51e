"""What the gates are shown: the reports of both sides, and how a number is read out of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdfast.config.gates import GatesConfig
from kdfast.errors import DataError
from kdfast.gates.paired import PairedDecision

REPORT_KIND, BASELINE_KIND = "kdfast.speed_report", "kdfast.speed_baseline"

_SECTIONS = ("metrics", "hardware", "fingerprints", "decoding", "quality", "absent")

Report = Mapping[str, Any]


class UnusableError(Exception):
    """A number that a gate needs is missing, or none: the gate fails with this reason."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a gate may look at.

    Attributes:
        current: the candidate's reports, one a run.
        baseline: the blessed model's; empty = none.
        limits: the section `gates`.
        allow_cross_hardware: compare times of different hardware all the same.
        paired: decisions of a paired trial, by metric (`ttft`, `tps`); they stand above the reports' times.
    """

    current: Sequence[Report]
    baseline: Sequence[Report]
    limits: GatesConfig
    allow_cross_hardware: bool = False
    paired: Mapping[str, PairedDecision] = field(default_factory=dict)


def reports_of(document: Report | Sequence[Report] | None, name: str) -> list[Report]:
    """The reports in a report, a baseline bundle or a list of reports.

    Args:
        document: one of them; None = no report.
        name: what to call it in an error.

    Raises:
        DataError: it is none of them.

    Example:
        >>> len(reports_of([{"metrics": {}}, {"metrics": {}}], "current"))
        2
    """
    if document is None:
        return []
    if isinstance(document, Mapping):
        document = document["reports"] if document.get("kind") == BASELINE_KIND else [document]
    if isinstance(document, str | bytes) or not isinstance(document, Sequence) or not document:
        raise DataError(f"{name}: must be a speed report or a list of them, got {document!r}")
    for report in document:
        problem = report_problem(report)
        if problem:
            raise DataError(f"{name}: no speed report: {problem}")
    return list(document)


def report_problem(report: object) -> str | None:
    """What is wrong with the shape of a report; None when nothing is. Numbers are not looked at.

    Example:
        >>> report_problem({"metrics": []})
        "'metrics' must be an object, got list"
    """
    if not isinstance(report, Mapping):
        return f"must be an object, got {type(report).__name__}"
    if report.get("kind", REPORT_KIND) != REPORT_KIND:
        return f"kind must be {REPORT_KIND!r}, got {report['kind']!r}"
    for section in _SECTIONS:
        if not isinstance(report.get(section), Mapping | None):
            return f"{section!r} must be an object, got {type(report[section]).__name__}"
    key = (report.get("hardware") or {}).get("key")
    return None if isinstance(key, str | None) else f"hardware.key must be a text, got {key!r}"


def number(report: Report, metric: str, key: str) -> float:
    """One number of a metric; `inf` where the report says null beside a count of infinities.

    Args:
        report: a speed report.
        metric: such as `ttft_ms`.
        key: such as `p95`.

    Raises:
        UnusableError: it is missing, NaN or no number.

    Example:
        >>> number({"metrics": {"ttfa_tokens": {"p95": None, "infinite": 3}}}, "ttfa_tokens", "p95")
        inf
    """
    found = (report.get("metrics") or {}).get(metric)
    if not isinstance(found, Mapping):
        raise UnusableError(_missing(report, metric))
    if found.get(key) is None and found.get("infinite"):
        return math.inf
    return _finite_or_infinite(found.get(key), f"{metric}.{key}")


def positive_number(report: Report, metric: str, key: str) -> float:
    """The same, for a time or a rate: it must be finite and above 0.

    Raises:
        UnusableError: also when it is 0, below 0 or infinite.
    """
    value = number(report, metric, key)
    if not 0 < value < math.inf:
        raise UnusableError(f"{metric}.{key} must be finite and above 0, got {value}")
    return value


def quality(report: Report, name: str) -> tuple[float, Sequence[Any] | None]:
    """A quality in [0, 1] and its results prompt by prompt, where the report has them.

    Raises:
        UnusableError: it is missing, NaN or outside [0, 1].
    """
    found = (report.get("quality") or {}).get(name)
    if not isinstance(found, Mapping):
        raise UnusableError(_missing(report, name, "quality"))
    value = _finite_or_infinite(found.get("value"), name)
    if not 0 <= value <= 1:
        raise UnusableError(f"{name} must be in [0, 1], got {value}")
    return value, found.get("per_prompt")


def _finite_or_infinite(value: object, name: str) -> float:
    if value is None:
        raise UnusableError(f"missing: {name}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnusableError(f"{name} must be a number, got {value!r}")
    if math.isnan(value):
        raise UnusableError(f"{name} is NaN")
    return float(value)


def _missing(report: Report, name: str, section: str = "") -> str:
    reasons = report.get("absent") or {}
    reason = reasons.get(name) or reasons.get(section)
    return f"missing: {name} ({reason})" if reason else f"missing: {name}"
