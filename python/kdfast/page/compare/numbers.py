"""The numbers that matter, one column a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kdfast.page.charts import Estimate
from kdfast.page.compare.comparable import Comparability
from kdfast.page.compare.facts import Kind
from kdfast.page.compare.run import Run
from kdfast.page.history import series, total
from kdfast.page.shares import reason
from kdfast.page.wording import duration, number, share
from kdfast.runs.reading import Missing

_SHARES = {
    "schema_valid": ("valid calls", True),
    "exact_match": ("exact matches", True),
    "f1": ("F1 of calls", True),
    "missed_calls": ("missed calls", False),
    "broken_calls": ("broken calls", False),
    "false_calls": ("false calls (no tool fits)", False),
    "cut": ("cut at the longest length", False),
}
_SPEED = {
    "ttft_ms": ("time to first token, median", False),
    "tps": ("tokens per second, median", True),
    "ttfa_tokens": ("first action, median", False),
    "ttfa_ms": ("first action in time, median", False),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of one run.

    Attributes:
        text: the number; "-" = the run does not have it.
        details: lines below it, such as the interval.
        why: why there is no number; "" = there is one.
        value: the number to find the best one; None = there is none.
        best: whether it is the best of comparable ones.
    """

    text: str
    details: tuple[str, ...] = ()
    why: str = ""
    value: float | None = None
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of all runs.

    Attributes:
        label: what it is.
        cells: one a run.
        letters: for each run a letter if not all may be compared: only those with one letter may. "" = no matter.
    """

    label: str
    cells: Sequence[Cell]
    letters: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of numbers.

    Attributes:
        title: its title.
        rows: its rows.
    """

    title: str
    rows: Sequence[Row]


def number_tables(runs: Sequence[Run], found: Mapping[Kind, Comparability]) -> list[Table]:
    """The tables of training, held-out rows, tool calls and speed. A row that no run has a number for is left out.

    Args:
        runs: the runs.
        found: see `comparability`.

    Raises:
        DataError: a file is not as `kdfast train` writes it; names file and key.
    """

    def row(
        label: str, read: Callable[[Run], Cell], kind: Kind | None = None, more: bool | None = None
    ) -> Row:
        told = found.get(kind) if kind is not None else None
        cells = [read(run) for run in runs]
        if told is not None and told.together and more is not None:
            cells = _mark_best(cells, more_is_better=more)
        return Row(label=label, cells=cells, letters=_letters(told, len(runs)))

    training = [
        row("steps", _steps),
        row("parameters", _parameters),
        row("tokens, in logged steps", lambda run: _sum(run, "tokens", number)),
        row("time, in logged steps", lambda run: _sum(run, "seconds", duration)),
    ]
    held_out = [
        row("loss, last", lambda run: _last(run, "loss"), "loss", more=False),
        row("loss, lowest", _lowest, "loss", more=False),
        row("cross-entropy, ground truth", lambda run: _last(run, "ce_truth"), "terms", more=False),
        row("cross-entropy, teacher's answers", lambda run: _last(run, "ce_teacher"), "terms", more=False),
        row("divergence from the teacher", lambda run: _last(run, "kl"), "divergence", more=False),
        row("next token is the label", lambda run: _last(run, "token_accuracy", share), "terms", more=True),
    ]
    calls = [
        row(label, partial(_share, name=name), "calls", more=more) for name, (label, more) in _SHARES.items()
    ]
    speed = [
        row(label, partial(_speed, name=name), "speed", more=more) for name, (label, more) in _SPEED.items()
    ]
    tables = {"Training": training, "Held-out rows": held_out, "Tool calls": calls, "Speed": speed}
    return [Table(title=title, rows=kept) for title, rows in tables.items() if (kept := _known(title, rows))]


def _known(title: str, rows: Sequence[Row]) -> list[Row]:
    """The rows that some run has; if there are none, the first one, as it says why."""
    kept = [row for row in rows if title == "Training" or any(not cell.why for cell in row.cells)]
    return kept or list(rows[:1])


def _letters(told: Comparability | None, count: int) -> list[str]:
    if told is None or told.answer != "bad":
        return [""] * count
    return ["" if group is None else chr(ord("A") + group % 26) for group in told.groups]


def _mark_best(cells: Sequence[Cell], *, more_is_better: bool) -> list[Cell]:
    values = [cell.value for cell in cells if cell.value is not None]
    if len(set(values)) < 2:
        return list(cells)
    best = max(values) if more_is_better else min(values)
    return [replace(cell, best=cell.value == best) for cell in cells]


def _none(why: str) -> Cell:
    return Cell(text="-", why=why)


def _steps(run: Run) -> Cell:
    steps = run.files.config.train.num_steps
    return Cell(text=f"{run.history.last_step:,}", details=(f"of {steps:,}",))


def _parameters(run: Run) -> Cell:
    found = run.saved.parameters
    return _none(found.reason) if isinstance(found, Missing) else Cell(text=f"{found:,}")


def _sum(run: Run, name: str, read: Callable[[float], str]) -> Cell:
    value = total(run.history.train, name)
    return Cell(text=read(value)) if value else _none(_no_metric(run, "No training step was logged."))


def _no_metric(run: Run, otherwise: str) -> str:
    lines = run.files.metrics
    return lines.reason if isinstance(lines, Missing) else otherwise


def _last(run: Run, name: str, read: Callable[[float], str] = number) -> Cell:
    points = series(run.history.validation, name)
    if points:
        return Cell(text=read(points[-1][1]), details=(f"at step {points[-1][0]:,.0f}",), value=points[-1][1])
    if run.history.validation:
        return _none(f"No validation has {name}: the run does not measure it.")
    without = "The run has no validation data." if run.files.config.data.validation is None else ""
    return _none(_no_metric(run, without or "No validation has ended yet."))


def _lowest(run: Run) -> Cell:
    points = series(run.history.validation, "loss")
    if not points:
        return _last(run, "loss")
    step, value = min(points, key=lambda point: point[1])
    return Cell(text=number(value), details=(f"at step {step:,.0f}",), value=value)


def _share(run: Run, name: str) -> Cell:
    file, found = run.files.after, run.after.get(name)
    if found is not None:
        return Cell(text=share(found.value), details=_told(found), value=found.value)
    if isinstance(file, Missing):
        return _none(file.reason)
    return _none(f"{name}: {reason(file, name)}.")


def _told(found: Estimate) -> tuple[str, ...]:
    counted = f"{found.count} of {found.total}" if found.count is not None else ""
    return tuple(filter(None, (counted, f"95 %: {found.interval}" if found.interval else "")))


def _speed(run: Run, name: str) -> Cell:
    metric = run.speed.metrics.get(name)
    if metric is not None:
        unit = f" {metric.unit}" if math.isfinite(metric.median) else ""
        stale = "stale: of another student" if run.speed.stale is not None else ""
        return Cell(
            text=f"{metric.text(metric.median)}{unit}",
            details=tuple(filter(None, (metric.without(), stale))),
            value=metric.median,
        )
    if run.speed.missing is not None:
        return _none(run.speed.missing.reason)
    reasons = [told for told, names in run.speed.absent if name in names.split(", ")]
    return _none(f"{name}: {'; '.join(reasons) or 'not in the speed report'}.")
