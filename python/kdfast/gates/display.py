"""The gates as a table for people."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from kdfast.gates.result import GateReport

_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "skipped": "yellow",
    "inconclusive": "yellow",
    "report_only": "dim",
}


def gate_table(report: GateReport) -> Table:
    """A rich table with one row per gate.

    Args:
        report: the result of `evaluate_speed_gates`.

    Example:
        >>> from rich.console import Console
        >>> from kdfast.gates import GateResult
        >>> result = GateResult(name="f1", status="passed", reason="fell by 0.002", value=0.8, limit=0.79)
        >>> Console(width=100).print(gate_table(GateReport(results=(result,))))
        Gates: passed...
        ... f1    passed    0.8   0.79         -  fell by 0.002...
    """
    # Keep the other columns narrow: on a terminal of 80 columns the reason must still be readable.
    table = Table(
        title=f"Gates: {_verdict(report)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in ("gate", "status"):
        table.add_column(heading, overflow="fold")
    for heading in ("value", "limit", "baseline"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("reason", min_width=16, overflow="fold")
    for result in report.results:
        name = f"{result.name}, {result.unit}" if result.unit else result.name
        numbers = [_number(number) for number in (result.value, result.limit, result.baseline)]
        status = f"[{_STYLES[result.status]}]{result.status}[/]"
        table.add_row(escape(name), status, *numbers, escape(result.reason))
    return table


def _verdict(report: GateReport) -> str:
    """The word in the title; it is not "passed" if no gate was judged."""
    if not report.passed:
        return "failed"
    return "passed" if any(result.status == "passed" for result in report.results) else "none was judged"


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"
