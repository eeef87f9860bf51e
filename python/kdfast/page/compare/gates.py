"""The gates of all runs: one row a gate, one column a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.page.compare.run import Run
from kdfast.page.gates import GateRow


@dataclass(frozen=True, kw_only=True)
class GateCell:
    """One gate of one run.

    Attributes:
        status: one of `kdfast.page.gates.STATUSES`; "" = the run has not this gate.
        numbers: its value and limit, "" = none.
        short: the reason up to its first colon.
        reason: the whole reason, or why the run has not this gate.
    """

    status: str
    numbers: str
    short: str
    reason: str


def gate_rows(runs: Sequence[Run]) -> list[tuple[str, list[GateCell]]]:
    """(gate, one cell a run), in the order in which the runs name the gates.

    Raises:
        DataError: a file is not a gate report; names file and key.
    """
    sides = [{row.name: row for row in run.gates.rows} for run in runs]
    names = dict.fromkeys(name for side in sides for name in side)
    return [
        (name, [_cell(run, side.get(name)) for run, side in zip(runs, sides, strict=True)]) for name in names
    ]


def _cell(run: Run, row: GateRow | None) -> GateCell:
    if row is None:
        missing = run.gates.missing
        why = missing.reason if missing is not None else "Its gates.json has not this gate."
        return GateCell(status="", numbers="", short="", reason=why)
    limit = f"limit {row.limit}" if row.limit else ""
    short = row.reason.partition(":")[0]
    return GateCell(
        status=row.status, numbers=", ".join(filter(None, (row.value, limit))), short=short, reason=row.reason
    )
