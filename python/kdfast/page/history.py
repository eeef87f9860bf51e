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
        step: optimiser updates done.
        values: its numbers.
        not_finite: names of numbers that were NaN or infinite.
    """

    step: int
    values: dict[str, float]
    not_finite: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """The lines of each kind, in the order of their steps.

    Attributes:
        train: of training steps.
        validation: of validations.
        speed: of measurements inside validations.
    """

    train: Sequence[Entry]
    validation: Sequence[Entry]
    speed: Sequence[Entry]

    @property
    def last_step(self) -> int:
        """The last step that any line speaks of; 0 where there is none."""
        return max((entry.step for entry in (*self.train, *self.validation)), default=0)

    def not_finite(self) -> list[str]:
        """Every name that was not finite in some training step or validation."""
        return sorted({name for entry in (*self.train, *self.validation) for name in entry.not_finite})


def series(entries: Sequence[Entry], name: str) -> Points:
    """(step, value) wherever the number is there.

    Examples:
        >>> series([Entry(step=1, values={"loss": 0.5}), Entry(step=2, values={})], "loss")
        [(1.0, 0.5)]
    """
    return [(float(entry.step), entry.values[name]) for entry in entries if name in entry.values]


def total(entries: Sequence[Entry], name: str) -> float:
    """The sum of a number over all lines that have it."""
    return sum(value for _, value in series(entries, name))


def read_history(lines: Sequence[Node]) -> History:
    """Sorts the lines of `metrics.jsonl` by kind; kinds that this version does not know are left aside.

    Raises:
        DataError: a line has no step or kind, or one of its numbers is none; names file, line and key.
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
        # a run has millions of these: a node is made only for what may be wrong
        name: value if type(value) is float and math.isfinite(value) else line.at(name).number()
        for name, value in line.object().items()
        if name not in tags
    }
    return Entry(
        step=step,
        values=values,
        not_finite=tuple(name.text() for name in names.list()) if names is not None else (),
    )
