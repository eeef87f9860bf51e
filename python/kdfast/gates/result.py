"""The result of each gate, and the report of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from kdfast.exit_codes import DONE, GATE_FAILED
from kdfast.gates.junit import junit_xml

GateStatus = Literal["passed", "failed", "skipped", "inconclusive", "report_only"]
_NUMBERS = ("value", "limit", "baseline")


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """The result of one gate.

    Attributes:
        name: the gate's name.
        status: `passed`; `failed`; `skipped` (the gate could not be applied); `inconclusive` (more samples are
            needed); `report_only` (the number is shown, but decides nothing).
        reason: why, in words; for `skipped` it starts with `no_baseline`, `hardware_mismatch`...
        value: the candidate's number; None = there is none; `inf` = it never happened (no first action).
        limit: the bound of `value`.
        baseline: the blessed model's number.
        unit: the unit of these three numbers.
    """

    name: str
    status: GateStatus
    reason: str
    value: float | None = None
    limit: float | None = None
    baseline: float | None = None
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """As strict JSON values: an infinite number becomes null, and `infinite` lists its key.

        Example:
            >>> GateResult(name="g", status="failed", reason="r", value=math.inf).to_json()["infinite"]
            ['value']
        """
        values = asdict(self)
        infinite = [name for name in _NUMBERS if values[name] == math.inf]
        return values | dict.fromkeys(infinite) | {"infinite": infinite}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        infinite = values["infinite"]
        given = {name: value for name, value in values.items() if name != "infinite"}
        return cls(**(given | dict.fromkeys(infinite, math.inf)))


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """All gates of one evaluation.

    Attributes:
        results: one result per gate, in the order of the gates.
        strict: whether `skipped` and `inconclusive` were changed to `failed`.

    Example:
        >>> report = GateReport(results=(GateResult(name="f1", status="skipped", reason="no_baseline"),))
        >>> report.passed, report.exit_code
        (True, 0)
        >>> GateReport.from_json(report.to_json()) == report
        True
    """

    results: tuple[GateResult, ...]
    strict: bool = False

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""
        return all(result.status != "failed" for result in self.results)

    @property
    def exit_code(self) -> int:
        """0, or 3 when a gate failed."""
        return DONE if self.passed else GATE_FAILED

    def __getitem__(self, name: str) -> GateResult:
        """The result of one gate; KeyError if it was not evaluated."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """For machines: strict JSON values."""
        return {
            "schema_version": "1.0",
            "kind": "kdfast.gate_report",
            "passed": self.passed,
            "exit_code": self.exit_code,
            "strict": self.strict,
            "results": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        results = tuple(GateResult.from_json(result) for result in values["results"])
        return cls(results=results, strict=values["strict"])

    def to_junit(self) -> str:
        """For CI: a JUnit XML document; `skipped`, `inconclusive` and `report_only` are skipped test cases."""
        return junit_xml([result.to_json() for result in self.results])
