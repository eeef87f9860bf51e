"""What people see of a preflight: one table a group of checks, and what it comes to at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kdfast.config import Config
from kdfast.recipes.preflight.check import Check, Status
from kdfast.recipes.preflight.facts import PreflightRequest
from kdfast.recipes.preflight.shown.result import Result, Row, readable
from kdfast.recipes.preflight.shown.summary import ending_lines, next_commands

STYLES: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}

MOST_SHOWN = 12
"""Lines to look at below a row; all of them are in the JSON."""

_STATUS_WIDTH, _SECONDS_WIDTH, _GAP = 4, 7, 2
_NAME_WIDTH, _WIDE_NAME_WIDTH = 22, 34
_WIDE = 110
_INDENT = _STATUS_WIDTH + _GAP
_REFRESHES = 4  # a second: the checks need the cores more


class PreflightScreen:
    """Shows a preflight while it runs; everything happens inside `with`.

    On a terminal a row appears when its check ends, and a line below says what is being looked at. In a log a group's
    table appears when the group ends.

    Args:
        config: what is looked at; decides which command comes next.
        request: what the user asked.
        console: where to; None = what `sys.stdout` is now, also if it is redirected later.
        clock: seconds since any moment.

    Example:
        >>> import io
        >>> from kdfast.recipes.preflight.check import passed
        >>> check = Check(name="batch.padding", proves="Padding is no target.", look=lambda: passed("none of 512 is"))
        >>> from kdfast.config.loader import config_from_dict
        >>> values = {"arch": {"init": "m"}, "data": {"train": "t", "tokenizer": "m", "shapes": [64]}}
        >>> config = config_from_dict({**values, "io": {"run_dir": "r"}})
        >>> screen = PreflightScreen(config, console=Console(file=io.StringIO(), width=60))
        >>> with screen:
        ...     screen.begin("batch")
        ...     screen.looking(check)
        ...     screen.found(Row.of(check, check.look(), seconds=0.1))
        >>> print(screen.console.file.getvalue())
        <BLANKLINE>
        batch
        PASS  padding                 none of 512 is           0.1 s
    """

    def __init__(
        self,
        config: Config,
        request: PreflightRequest | None = None,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(file=sys.stdout)
        self._again = (request or PreflightRequest()).again
        self._next_commands = next_commands(config, self._again)
        self._looking = _Looking(clock)
        self._live: Live | None = None
        self._group: str | None = None
        self._rows: list[Row] = []

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=self._looking.renderable,
                refresh_per_second=_REFRESHES,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def begin(self, group: str) -> None:
        """A group begins; the one before has ended."""
        self._end_group()
        self._group = group
        if self._live is not None:
            self._print_heading(group)

    def looking(self, check: Check) -> None:
        """A check begins to look."""
        self._look_at(check)

    def found(self, row: Row) -> None:
        """A check has found something."""
        self._look_at(None)
        if self._live is not None:
            self._print(rows_table([row], self.console))
        else:
            self._rows.append(row)

    def end(self, result: Result, written: Sequence[Path] = ()) -> None:
        """All checks have looked: says what it comes to.

        Args:
            result: the result.
            written: the files that hold it.
        """
        self._stop()
        for line in ending_lines(result, written, self._again, self._next_commands):
            whole = line.no_wrap is True or not self.console.is_terminal
            self.console.print(line, highlight=False, soft_wrap=whole)

    def _stop(self) -> None:
        self._end_group()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _look_at(self, check: Check | None) -> None:
        self._looking.at(check)
        if self._live is not None:
            self._live.refresh()  # else the next print repeats the last frame, which names the former check

    def _end_group(self) -> None:
        self._look_at(None)
        if self._rows:
            self._print_heading(self._group or self._rows[0].group)
            self._print(rows_table(self._rows, self.console))
        self._group, self._rows = None, []

    def _print_heading(self, group: str) -> None:
        self._print(Text(f"\n{readable(group)}", style="bold"))

    def _print(self, what: RenderableType) -> None:
        self.console.print(what, highlight=False, markup=False)


def rows_table(rows: Iterable[Row], console: Console) -> RenderableType:
    """Rows as a table. Its columns depend on the console's width alone: rows printed one by one are in line."""
    table = _grid(console)
    parts: list[RenderableType] = []
    for row in rows:
        seen = Text(row.text)
        if row.remedy:
            seen.append("\n").append("remedy: ", style="bold").append(row.remedy)
        table.add_row(
            Text(row.status.upper(), style=STYLES[row.status]),
            Text(_broken(row.own_name, _name_width(console))),
            seen,
            Text(f"{row.seconds:.1f} s", style="dim"),
        )
        if row.shown:
            parts += [table, _shown(row.shown, console)]
            table = _grid(console)
    if table.row_count:
        parts.append(table)
    return _Stack(parts)


def print_list(console: Console, checks: Sequence[Check]) -> None:
    """Prints every check and what it proves, by group."""
    for group in dict.fromkeys(check.group for check in checks):
        console.print(Text(f"\n{group}", style="bold"), highlight=False)
        table = Table.grid(padding=(0, _GAP))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in checks:
            if check.group == group:
                table.add_row(Text(check.name), Text(check.proves))
        console.print(table, highlight=False)


class _Looking:
    """The line that says what is being looked at, and for how long."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._check: Check | None = None
        self._since = 0.0
        self._spinner = Spinner("line")  # ASCII: fits any terminal

    def at(self, check: Check | None) -> None:
        """The check that looks now; None = none does."""
        self._since = self._clock()
        self._check = check

    def renderable(self) -> RenderableType:
        """Called for each frame, in the thread that draws."""
        check = self._check
        if check is None:
            return Text("")
        seconds = self._clock() - self._since
        text = Text.assemble(
            f"{check.name} {seconds:.0f} s  ", (check.proves, "dim"), no_wrap=True, overflow="ellipsis"
        )
        self._spinner.update(text=text)
        return self._spinner


class _Stack:
    """Several renderables, one below the other."""

    def __init__(self, parts: Sequence[RenderableType]) -> None:
        self._parts = parts

    def __rich_console__(self, *_: object) -> Iterable[RenderableType]:
        return self._parts


def _grid(console: Console) -> Table:
    table = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False, expand=True)
    table.add_column(width=_STATUS_WIDTH, no_wrap=True)
    table.add_column(width=_name_width(console), overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    table.add_column(width=_SECONDS_WIDTH, no_wrap=True, justify="right")
    return table


def _name_width(console: Console) -> int:
    return _WIDE_NAME_WIDTH if console.width >= _WIDE else _NAME_WIDTH


def _broken(name: str, width: int) -> str:
    """A name in lines of at most this width, broken after an underscore if it has one."""
    lines = [""]
    for part in name.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _shown(lines: Sequence[str], console: Console) -> RenderableType:
    """The first lines to look at, wrapped, below their row."""
    width = max(1, console.width - _INDENT)
    wrapped = list(Text("\n".join(lines), style="dim", overflow="fold").wrap(console, width))
    if len(wrapped) > MOST_SHOWN:
        left = len(wrapped) - (MOST_SHOWN - 1)
        wrapped = [*wrapped[: MOST_SHOWN - 1], Text(f"... {left} more lines are in the JSON", style="dim")]
    return Padding(Text("\n").join(wrapped), (0, 0, 0, _INDENT))
