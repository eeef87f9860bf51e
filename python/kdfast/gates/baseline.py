"""The blessed baseline: a JSON file with all that a later comparison needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdfast.errors import DataError
from kdfast.files import read_document, write_document
from kdfast.gates.evidence import BASELINE_KIND, REPORT_KIND, Report, report_problem
from kdfast.gates.paired import planned_pairs, spread
from kdfast.gates.pairs import Pairs

SCHEMA_VERSION = "1.0"
_REMEDY = "bless a run again (`kdfast bless RUN`)"
_NEEDED = {"hardware": "key", "fingerprints": "prompts"}


def noise_floor(pairs: Pairs) -> dict[str, Any]:
    """Measures the noise of a machine: the model was run against itself (A/A).

    Args:
        pairs: pairs whose two sides are the same model, interleaved as for a gate.

    Returns:
        `pairs` and `prompts`: their numbers;
        `sd_log_ratio`: the `spread` of the pairs;
        `median_ratio`: 1 on a machine without noise;
        `planned_pairs`: how many pairs a gate with a limit of 5 % will need on this machine.

    Raises:
        DataError: fewer than two pairs, or a time that is not finite and above 0.

    Example:
        >>> noise_floor(Pairs.from_rounds([[10.0], [22.0]], [[10.0], [20.0]]))["median_ratio"]
        1.0488...
    """
    problem = "fewer than 2 pairs" if len(pairs) < 2 else pairs.problem()
    if problem:
        raise DataError(f"noise floor: {problem}")
    ratios = pairs.log_ratios()
    sd = spread(pairs)
    return {
        "pairs": len(pairs),
        "prompts": pairs.prompts,
        "sd_log_ratio": sd,
        "median_ratio": float(np.exp(np.median(ratios))),
        "planned_pairs": planned_pairs(sd),
    }


def baseline_bundle(
    reports: Sequence[Report],
    noise: Mapping[str, Mapping[str, Any]] | None = None,
    unsteady: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Makes the content of a baseline file for a blessed model.

    Args:
        reports: its speed reports, one per run, with their raw samples; all of one model, one prompt set, one machine.
        noise: the `noise_floor` of each metric (`ttft`, `tps`); None = not measured.
        unsteady: for each metric that failed when the model ran against itself, the reason; None = none failed, or
            this was not tried.

    Raises:
        DataError: a report lacks its hardware key or the hash of its prompts or model, or they differ.
    """
    if not reports:
        raise DataError("baseline: must hold at least one speed report, got none")
    for section, key in (*_NEEDED.items(), ("fingerprints", "model")):
        named = {(report.get(section) or {}).get(key) for report in reports}
        if None in named:
            raise DataError(f"baseline: a report lacks {section}.{key}; measure it again")
        if len(named) > 1:
            raise DataError(
                f"baseline: {section}.{key} must be the same in all reports, got {sorted(map(str, named))}"
            )
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": BASELINE_KIND,
        "hardware": reports[0]["hardware"],
        "fingerprints": reports[0]["fingerprints"],
        "noise_floor": dict(noise or {}),
        "unsteady": dict(unsteady or {}),
        "reports": list(reports),
    }


def write_baseline(path: str | os.PathLike[str], bundle: Mapping[str, Any]) -> None:
    """Writes a bundle: the whole file, or nothing.

    Args:
        path: the file; an existing one is replaced.
        bundle: the result of `baseline_bundle`.

    Raises:
        DataError: a number in it is NaN or infinite (a report writes infinite numbers as null, and counts them).
        OSError: the file cannot be written.
    """
    try:
        write_document(path, bundle, sort_keys=True, ensure_ascii=True)
    except ValueError:
        raise DataError("baseline: must not hold NaN or infinity", str(path)) from None


def load_baseline_speed_metrics(
    path: str | os.PathLike[str], *, missing_ok: bool = False
) -> dict[str, Any] | None:
    """Reads a blessed baseline for `evaluate_speed_gates`.

    Args:
        path: a file of `write_baseline`, or a single speed report.
        missing_ok: return None, not an error, if the file does not exist.

    Raises:
        FileNotFoundError: there is no such file, and `missing_ok` is false.
        OSError: the file cannot be read.
        DataError: the file is damaged, or not a baseline of this version; the message names the file and the remedy.

    Example:
        >>> load_baseline_speed_metrics("nowhere.json", missing_ok=True) is None
        True
    """
    kinds = (BASELINE_KIND, REPORT_KIND)
    try:
        document = read_document(path, name="baseline", remedy=_REMEDY, kinds=kinds, version=SCHEMA_VERSION)
    except FileNotFoundError:
        if missing_ok:
            return None
        raise
    problem = _problem(document)
    if problem:
        raise DataError(f"not a baseline: {problem}; {_REMEDY}", str(path))
    return document


def _problem(document: Mapping[str, Any]) -> str | None:
    """What is wrong with the reports of a loaded file."""
    reports = document.get("reports") if document["kind"] == BASELINE_KIND else [document]
    if not isinstance(reports, list) or not reports:
        return "it holds no reports"
    if not all(isinstance(report, dict) and "metrics" in report for report in reports):
        return "a report has no metrics"
    return next(filter(None, map(report_problem, reports)), None)
