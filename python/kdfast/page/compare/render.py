"""Makes one HTML document from several runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from kdfast.page.compare.comparable import CURVES, comparability
from kdfast.page.compare.curves import loss_curve, term_curves
from kdfast.page.compare.gates import gate_rows
from kdfast.page.compare.numbers import number_tables
from kdfast.page.compare.run import Run, style
from kdfast.page.compare.settings import differences
from kdfast.page.environment import environment


def render_comparison(runs: Sequence[Run]) -> tuple[str, list[str]]:
    """Makes the page of several runs.

    Like the page of one run it needs no network, no script and no other file, and forbids all three.

    Args:
        runs: at least two, each label once.

    Returns:
        The HTML document; and in words which numbers of the runs cannot be compared, one line a kind.

    Raises:
        DataError: a file is not as `kdfast train` writes it; the message names file, line and key.
    """
    found = comparability(runs)
    gates = gate_rows(runs)
    tables = number_tables(runs, found)
    reasons = [cell.why for table in tables for row in table.rows for cell in row.cells]
    reasons += [cell.reason for _, cells in gates for cell in cells if not cell.status]
    template = environment().get_template("compare.html.jinja")
    document = template.render(
        runs=[(run, style(index), _written(run.files.written_at)) for index, run in enumerate(runs)],
        written=_written(max(run.files.written_at for run in runs)),
        comparable=list(found.values()),
        by_name=any(one.by_name for one in found.values()),
        curves_differ=[found[kind].title for kind in CURVES if kind in found and found[kind].answer == "bad"],
        curve=loss_curve(runs),
        terms=term_curves(runs),
        notes={why: number for number, why in enumerate(dict.fromkeys(filter(None, reasons)), 1)},
        tables=tables,
        gates=gates,
        without_gates=[(run.label, run.gates.missing.reason) for run in runs if run.gates.missing],
        differences=differences(runs),
    )
    told = [
        f"{one.title}: cannot be compared. {' '.join(one.because)}"
        for one in found.values()
        if one.answer == "bad"
    ]
    return document, told


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
