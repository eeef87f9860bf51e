"""What a gate may look at: the reports of both sides; and how to read a number from them."""

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
    """A value that a gate needs is missing, or is not a valid number. The gate fails, and this is its reason."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a gate may look at.

    Attributes:
        current: the candidate's reports, one per run.
        baseline: the blessed model's reports; empty = there is no baseline.
        limits: the section `gates`.
        allow_cross_hardware: compare times even if the hardware differs.
        paired: the decision of a paired trial for each metric (`ttft`, `tps`). Where there is one, the times in the
            reports are not used.
    """

    current: Sequence[Report]
    baseline: Sequence[Report]
    limits: GatesConfig
    allow_cross_hardware: bool = False
    paired: Mapping[str, PairedDecision] = field(default_factory=dict)


def reports_of(document: Report | Sequence[Report] | None, name: str) -> list[Report]:
    """The reports in a document.

    Args:
        document: a report, a baseline bundle or a list of reports; None = no report.
        name: the document's name in error messages.

    Raises:
        DataError: the document is none of these.

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
    """What is wrong with the structure of a report; None = nothing. The numbers in it are not checked.

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
    """One number of a metric; `inf` where the report has null and counts infinite samples.

    Args:
        report: a speed report.
        metric: the metric's name, such as `ttft_ms`.
        key: the number's key, such as `p95`.

    Raises:
        UnusableError: the number is missing, NaN or not a number.

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
    """Like `number`, for a time or a rate, which must be finite and above 0.

    Raises:
        UnusableError: the number is missing, NaN, infinite, 0 or negative, or not a number.
    """
    value = number(report, metric, key)
    if not 0 < value < math.inf:
        raise UnusableError(f"{metric}.{key} must be finite and above 0, got {value}")
    return value


def quality(report: Report, name: str) -> tuple[float, Sequence[Any] | None]:
    """A quality in [0, 1], and its results per prompt; None instead of these if the report has none.

    Raises:
        UnusableError: the quality is missing, NaN or outside [0, 1].
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
