"""The metrics of a run over its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.runs.node import Node

Points = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of `metrics.jsonl`.

    Attributes:
        step: how many optimiser updates were done.
        values: the line's numbers, by name.
        not_finite: the names of numbers that were NaN or infinite.
    """

    step: int
    values: dict[str, float]
    not_finite: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """The lines of `metrics.jsonl` by kind, in the order of their steps.

    Attributes:
        train: one entry per logged training step.
        validation: one entry per validation.
        speed: one entry per speed measurement.
    """

    train: Sequence[Entry]
    validation: Sequence[Entry]
    speed: Sequence[Entry]

    @property
    def last_step(self) -> int:
        """The last step of any training or validation line; 0 = there is no line."""
        return max((entry.step for entry in (*self.train, *self.validation)), default=0)

    def not_finite(self) -> list[str]:
        """The names of all numbers that were NaN or infinite in a training step or validation."""
        return sorted({name for entry in (*self.train, *self.validation) for name in entry.not_finite})


def series(entries: Sequence[Entry], name: str) -> Points:
    """(step, value) for each line that has this number.

    Examples:
        >>> series([Entry(step=1, values={"loss": 0.5}), Entry(step=2, values={})], "loss")
        [(1.0, 0.5)]
    """
    return [(float(entry.step), entry.values[name]) for entry in entries if name in entry.values]


def total(entries: Sequence[Entry], name: str) -> float:
    """The sum of one number over all lines that have it."""
    return sum(value for _, value in series(entries, name))


def read_history(lines: Sequence[Node]) -> History:
    """Sorts the lines of `metrics.jsonl` by kind; unknown kinds are skipped.

    Raises:
        DataError: a line has no step or kind, or one of its values is not a number; the message names file, line and
            key.
    """
    kinds: dict[str, list[Entry]] = {"train": [], "validation": [], "speed": []}
    for line in lines:
        kind = line["kind"].text()
        if kind in kinds:
            kinds[kind].append(_entry(line))
    return History(**{kind: sorted(entries, key=lambda entry: entry.step) for kind, entries in kinds.items()})


def _entry(line: Node) -> Entry:
    step = line["step"].count()
    names = line.find("not_finite")
    tags = {"step", "kind", "not_finite", "export", "absent"}
    values = {
        # a run has millions of values: to save time, make a node only for a value that may be wrong
        name: value if type(value) is float and math.isfinite(value) else line.at(name).number()
        for name, value in line.object().items()
        if name not in tags
    }
    return Entry(
        step=step,
        values=values,
        not_finite=tuple(name.text() for name in names.list()) if names is not None else (),
    )
