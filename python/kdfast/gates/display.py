"""The gates as a table for people."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
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

_REASON_WIDTH = 40
"""A reason needs this many columns; a key that it tells to set must not be cut in two."""
_WIDEST = 1000


def gate_table(report: GateReport) -> GateTable:
    """One row per gate, with its reason; on a narrow terminal the reasons stand below, so that remedies stay whole.

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
    return GateTable(report)


@dataclass(frozen=True)
class GateTable:
    """The result of gates, as rich prints it: see `gate_table`.

    Attributes:
        report: the result.
    """

    report: GateReport

    @property
    def title(self) -> str:
        """The verdict in words."""
        return f"Gates: {_verdict(self.report)}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        numbers = self._table(reasons=False)
        width = console.measure(numbers, options=options.update(max_width=_WIDEST)).maximum
        if options.max_width - width >= _REASON_WIDTH:
            yield self._table(reasons=True)
            return
        yield numbers
        below = Table.grid(padding=(0, 1))
        below.add_column(no_wrap=True)
        below.add_column(overflow="fold")
        for result in self.report.results:
            if result.reason:
                below.add_row(f" {escape(result.name)}:", escape(result.reason))
        yield below
        yield ""

    def _table(self, *, reasons: bool) -> Table:
        table = Table(
            title=self.title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        for heading in ("gate", "status"):
            table.add_column(heading, overflow="fold")
        for heading in ("value", "limit", "baseline"):
            table.add_column(heading, justify="right", overflow="fold")
        if reasons:
            table.add_column("reason", overflow="fold")
        for result in self.report.results:
            name = f"{result.name}, {result.unit}" if result.unit else result.name
            numbers = [_number(number) for number in (result.value, result.limit, result.baseline)]
            status = f"[{_STYLES[result.status]}]{result.status}[/]"
            reason = [escape(result.reason)] if reasons else []
            table.add_row(escape(name), status, *numbers, *reason)
        return table


def _verdict(report: GateReport) -> str:
    """The word in the title; it is not "passed" if no gate was judged."""
    if not report.passed:
        return "failed"
    return "passed" if any(result.status == "passed" for result in report.results) else "none was judged"


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"
