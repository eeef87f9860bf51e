"""Which numbers of several runs may be held against each other, and where not, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kdfast.page.compare.facts import Fact, Kind, facts_by_kind
from kdfast.page.compare.run import Run

CURVES: tuple[Kind, ...] = ("loss", "terms", "divergence")
"""The kinds that are drawn over the steps."""

_TITLES: dict[Kind, str] = {
    "loss": "Held-out loss, the weighted sum",
    "terms": "Cross-entropy, agreement",
    "divergence": "Divergence from the teacher",
    "calls": "Tool calls",
    "speed": "Speed",
}
_BY_NAME = "Some inputs are known only by their names in the configs."
_MANY = 4
"""A group of at least this many runs is told by its number."""


@dataclass(frozen=True, kw_only=True)
class Comparability:
    """Whether one kind of number may be compared.

    Attributes:
        title: the kind of number, in words.
        answer: `good` = yes; `look` = not known for sure; `bad` = not among all of the runs.
        because: the reasons, one sentence each.
        groups: for each run the number of its group; only runs of one group are alike. None = it has no such numbers.
    """

    title: str
    answer: Literal["good", "look", "bad"]
    because: Sequence[str]
    groups: Sequence[int | None]

    @property
    def by_name(self) -> bool:
        """Whether some inputs were compared by their names only."""
        return _BY_NAME in self.because

    @property
    def together(self) -> bool:
        """Whether all runs that have such numbers may be compared."""
        return self.answer == "good"


def comparability(runs: Sequence[Run]) -> dict[Kind, Comparability]:
    """What may be compared; a kind of number that fewer than two runs have is left out.

    Raises:
        DataError: a file is not as `kdfast train` writes it; names file and key.
    """
    names, found = [run.label for run in runs], facts_by_kind(runs)
    made = {
        kind: _judge(title, names, *found[kind]) for kind, title in _TITLES.items() if sum(found[kind][0]) > 1
    }
    if "speed" in made:
        made["speed"] = _with_stale(made["speed"], runs)
    return made


def _with_stale(speed: Comparability, runs: Sequence[Run]) -> Comparability:
    """The same, but not quite comparable if a report is about another student than its run's."""
    stale = [run.label for run in runs if run.speed.stale is not None]
    if not stale:
        return speed
    told = f"Of another student than the run has: {', '.join(stale)}."
    answer = "look" if speed.answer == "good" else speed.answer
    return replace(speed, answer=answer, because=[told, *speed.because])


def _judge(title: str, names: Sequence[str], present: Sequence[bool], facts: Sequence[Fact]) -> Comparability:
    having = [index for index, one in enumerate(present) if one]
    differ: dict[str, list[str]] = {}
    because, by_name = [], False
    for fact in facts:
        values = {index: fact.values[index] for index in having}
        lacking = [names[index] for index, value in values.items() if value is None]
        if len(set(values.values()) - {None}) > 1:
            differ.setdefault(_parted(values, names), []).append(fact.name)
        elif lacking:
            whose = ", ".join(lacking) if len(lacking) < len(having) else "all runs"
            because.append(f"Not known: {fact.name} of {whose}.")
        by_name = by_name or not fact.proven
    answer: Literal["good", "look", "bad"] = "bad" if differ else "look" if because or by_name else "good"
    because = [f"Other {_listed(which)}: {parts}." for parts, which in differ.items()] + because
    if by_name:
        because.append(_BY_NAME)
    missing = [name for name, one in zip(names, present, strict=True) if not one]
    if missing:
        because.append(f"Without such numbers: {', '.join(missing)}.")
    keys = [tuple(fact.values[index] for fact in facts) if one else None for index, one in enumerate(present)]
    numbers = {
        key: number for number, key in enumerate(dict.fromkeys(key for key in keys if key is not None))
    }
    groups = [None if key is None else numbers[key] for key in keys]
    return Comparability(title=title, answer=answer, because=because, groups=groups)


def _parted(values: Mapping[int, str | None], names: Sequence[str]) -> str:
    """The runs by what they had, such as `a, c | b`; of many groups only one is told by a number, `b | 5 others`."""
    groups: dict[str, list[str]] = {}
    for index, value in values.items():
        groups.setdefault(value or "not known", []).append(names[index])
    largest = max(groups.values(), key=len)
    return " | ".join(
        f"the {len(group)} others" if group is largest and len(group) >= _MANY else ", ".join(group)
        for group in sorted(groups.values(), key=lambda group: group is largest and len(group) >= _MANY)
    )


def _listed(names: Sequence[str]) -> str:
    """Names as an enumeration.

    Examples:
        >>> _listed(["a"]), _listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
