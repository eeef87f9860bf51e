"""A first look at what `kdfast gate` judges by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdfast.config import GatesConfig
from kdfast.errors import ConfigError
from kdfast.files import read_document
from kdfast.recipes.first_look.files import check_named, file_problem


def check_enabled(limits: GatesConfig) -> None:
    """Checks that there is something to judge.

    Raises:
        ConfigError: no gate is enabled.
    """
    if not limits.enabled:
        raise ConfigError("gates.enabled: must name at least one gate, else everything passes, got []")


def check_baselines(limits: GatesConfig, baselines: Sequence[Path] = ()) -> None:
    """Checks that what the user names as a baseline is one.

    Args:
        limits: the section `gates`; its `baseline` counts if `baselines` is empty.
        baselines: blessed baselines, or speed reports of the model in use.

    Raises:
        ConfigError: a file is missing, or a directory.
        DataError: a file is damaged, or no baseline.
        OSError: a file cannot be read.
    """
    configured = () if limits.baseline is None else (limits.baseline,)
    name, paths = ("--baseline", baselines) if baselines else ("gates.baseline", configured)
    check_named((name, file_problem(path)) for path in paths)
    if not paths:
        return
    from kdfast.gates import load_baseline_speed_metrics  # numpy takes half a second

    for path in paths:
        load_baseline_speed_metrics(path)


def check_reports(files: Sequence[Path]) -> None:
    """Checks that files are speed reports.

    Raises:
        ConfigError: a file is missing, or a directory.
        DataError: a file is damaged, or no speed report of this version.
        OSError: a file cannot be read.
    """
    check_named(("--candidate-report", file_problem(path)) for path in files)
    if not files:
        return
    from kdfast.gates.evidence import REPORT_KIND

    for path in files:
        read_document(
            path,
            name="speed report",
            remedy="measure again (`kdfast measure MODEL`)",
            kinds=(REPORT_KIND,),
            version="1.0",
        )
