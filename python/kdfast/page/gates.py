"""The section of gates: the result of each gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.page.wording import number
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles

STATUSES = ("failed", "inconclusive", "passed", "report_only", "skipped")
"""Every status of a gate, the most important first."""
_INFINITE = "infinite"
"""Not "never": a gate report does not say whether an answer without a call was cut."""


@dataclass(frozen=True, kw_only=True)
class GateRow:
    """One gate, its numbers as text ("" = none).

    Attributes:
        name: the gate's name.
        status: one of `STATUSES`.
        value: the candidate's number.
        limit: the bound of `value`.
        baseline: the blessed model's number.
        reason: why, in words.
    """

    name: str
    status: str
    value: str
    limit: str
    baseline: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class GateSection:
    """What the page shows of the gates.

    Attributes:
        missing: the missing file; None = it is there.
        rows: the gates, in the order of the file.
        strict: whether `skipped` and `inconclusive` were changed to `failed`.
    """

    missing: Missing | None
    rows: Sequence[GateRow]
    strict: bool

    def names(self, status: str) -> list[str]:
        """The names of the gates with this status."""
        return [row.name for row in self.rows if row.status == status]

    @property
    def reasons(self) -> list[str]:
        """Each reason up to its first colon, such as `no_baseline`; each once."""
        return list(dict.fromkeys(row.reason.partition(":")[0] for row in self.rows))

    @property
    def counts(self) -> str:
        """How many gates have each status, such as `1 failed, 4 passed`."""
        counts = Counter(row.status for row in self.rows)
        return ", ".join(
            f"{counts[status]} {status.replace('_', ' ')}" for status in STATUSES if counts[status]
        )


def gate_section(files: RunFiles) -> GateSection:
    """Collects what the page shows of the gates.

    Raises:
        DataError: the file is not a gate report; the message names file and key.
    """
    report = files.gates
    if isinstance(report, Missing):
        return GateSection(missing=report, rows=[], strict=False)
    if report["kind"].text() != "kdfast.gate_report":
        raise report["kind"].wrong("'kdfast.gate_report'")
    return GateSection(
        missing=None,
        rows=[_row(node) for node in report["results"].list()],
        strict=report["strict"].flag(),
    )


def _row(node: Node) -> GateRow:
    status = node["status"]
    if status.text() not in STATUSES:
        raise status.wrong(f"one of {', '.join(STATUSES)}")
    infinite = {one.text() for one in node["infinite"].list()}
    unit = node["unit"].text()
    shown = {}
    for key in ("value", "limit", "baseline"):
        found = node.find(key)
        text = _INFINITE if key in infinite else number(found.number()) if found is not None else ""
        shown[key] = f"{text} {unit}".strip() if text not in ("", _INFINITE) else text
    return GateRow(name=node["name"].text(), status=status.text(), reason=node["reason"].text(), **shown)
