"""Checks report files of several runs: they must be different runs of one model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kdfast.errors import DataError
from kdfast.gates.evidence import Report

_ALIKE = (("fingerprints", "model"), ("fingerprints", "prompts"), ("hardware", "key"))


def check_runs(side: str, files: Sequence[tuple[Path, Report]]) -> None:
    """Refuses reports that would make one run count twice, or two models count as one.

    Args:
        side: whose reports, for messages: `candidate` or `baseline`.
        files: each report with its file.

    Raises:
        DataError: a report is given twice, as the same file or as a copy; or the models, prompts or machines of
            the reports differ.

    Example:
        >>> one = {"measured_at": 1.0, "metrics": {"ttft_ms": {"samples": [12.5]}}}
        >>> check_runs("candidate", [(Path("a.json"), one), (Path("b.json"), one)])
        Traceback (most recent call last):
        ...
        kdfast.errors.DataError: b.json: candidate: the same run as in another file; name each run once: a.json
    """
    seen: dict[str, Path] = {}
    for file, report in files:
        run = json.dumps([report.get("measured_at"), report.get("metrics")], sort_keys=True)
        if run in seen:
            raise DataError(
                f"{side}: the same run as in another file; name each run once: {seen[run]}", str(file)
            )
        seen[run] = file
    for section, key in _ALIKE:
        named = {str((report.get(section) or {}).get(key)) for _, report in files}
        if len(named) > 1:
            raise DataError(
                f"{side} reports: {section}.{key} must be the same in all of them, got {', '.join(sorted(named))}"
            )
