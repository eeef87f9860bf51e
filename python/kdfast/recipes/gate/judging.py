"""What all ways of judging share: the limits, the baseline, and where the result goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from kdfast.config import GatesConfig
from kdfast.files import check_file, write_document, write_text_whole
from kdfast.gates import GateReport, PairedDecision, evaluate_speed_gates, load_baseline_speed_metrics
from kdfast.gates.display import gate_table
from kdfast.gates.evidence import Report, reports_of
from kdfast.recipes.first_look.of_gate import check_enabled
from kdfast.recipes.gate.reports import check_runs


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How to judge a candidate.

    Attributes:
        limits: the section `gates`.
        baselines: blessed baselines or speed reports; () = `limits.baseline`, if that is set.
        strict: `skipped` and `inconclusive` count as `failed`.
        allow_cross_hardware: compare times although the hardware differs.
        json: file for the result; None = none.
        junit: file for the result as JUnit XML; None = none.
    """

    limits: GatesConfig = field(default_factory=GatesConfig)
    baselines: Sequence[Path] = ()
    strict: bool = False
    allow_cross_hardware: bool = False
    json: Path | None = None
    junit: Path | None = None

    def baseline(self) -> list[Report]:
        """The reports of the blessed model; [] = there is no baseline.

        Raises:
            DataError: a file is damaged, or no baseline; see also `check_runs`.
            OSError: it is not there, or cannot be read.
        """
        configured = () if self.limits.baseline is None else (self.limits.baseline,)
        paths = self.baselines or configured
        files = [
            (path, report)
            for path in paths
            for report in reports_of(load_baseline_speed_metrics(path), str(path))
        ]
        check_runs("baseline", files)
        return [report for _, report in files]

    def check(self) -> None:
        """Checks before the work what would fail after it; makes the folders of the files to write.

        Raises:
            ConfigError: no gate is enabled.
            OSError: a file is a directory, or its folder cannot be made.
        """
        check_enabled(self.limits)
        for path in (self.json, self.junit):
            if path is not None:
                check_file(path)

    def conclude(
        self,
        current: Sequence[Report],
        baseline: Sequence[Report],
        console: Console,
        *,
        paired: Mapping[str, PairedDecision] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> int:
        """Judges the candidate, shows the table and writes the files.

        Args:
            current: the candidate's speed reports.
            baseline: the blessed model's; [] = none.
            console: where the table is printed.
            paired: decisions of a paired trial.
            context: what was run, for the JSON file.

        Returns:
            The exit code: 0, or 3 when a gate failed.
        """
        result = evaluate_speed_gates(
            current,
            baseline or None,
            self.limits,
            allow_cross_hardware=self.allow_cross_hardware,
            strict=self.strict,
            paired=paired,
        )
        console.print(gate_table(result))
        self._write(result, context or {})
        for label, path in (("json", self.json), ("junit", self.junit)):
            if path is not None:
                console.print(f"  {label:<12} {path}", highlight=False, soft_wrap=True, markup=False)
        return result.exit_code

    def _write(self, result: GateReport, context: Mapping[str, Any]) -> None:
        if self.json is not None:
            document = result.to_json() | ({"context": dict(context)} if context else {})
            write_document(self.json, document)
        if self.junit is not None:
            write_text_whole(self.junit, result.to_junit())
