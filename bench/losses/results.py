"""What the figures say: medians, ratios to kdfast, the best peer, and which goals are met.

A document is what `losses.json` holds; its `cases` each have `contenders`: name -> entry, and an entry either
`absent` (the reason) or `seconds` (a list, one a round) and `peak_bytes`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.losses.contenders import FLOOR, KDFAST
from bench.losses.measure import ALL

Entry = dict[str, Any]
CaseResult = dict[str, Any]


def present(case: CaseResult, name: str) -> bool:
    """There are figures."""
    return "seconds" in case["contenders"].get(name, {})


def time_ratio(case: CaseResult, name: str, base: str = KDFAST) -> float:
    """Median over rounds of one's time by another's in the same round."""
    ours, theirs = case["contenders"][base]["seconds"], case["contenders"][name]["seconds"]
    return statistics.median(their / our for their, our in zip(theirs, ours, strict=False))


def memory_ratio(case: CaseResult, name: str, base: str = KDFAST) -> float | None:
    """One's peak by another's; None where it was not measured."""
    ours, theirs = (case["contenders"][each]["peak_bytes"] for each in (base, name))
    return theirs / ours if ours and theirs else None


def peers(case: CaseResult) -> list[str]:
    """Peers with figures."""
    return [name for name, contender in ALL.items() if contender.peer and present(case, name)]


def fastest(case: CaseResult, among: list[str]) -> str:
    """The one with the least median time."""
    return min(among, key=lambda name: statistics.median(case["contenders"][name]["seconds"]))


def smallest(case: CaseResult, among: list[str]) -> str:
    """The one with the least peak memory."""
    return min(among, key=lambda name: case["contenders"][name]["peak_bytes"] or float("inf"))


def left_out(done: list[CaseResult], like: dict[str, Any], factor: float) -> dict[str, str]:
    """Contenders that a larger case does without, and why: slow and large at the first case of the same kind.

    Args:
        done: cases with figures, in the order they were taken.
        like: the new case's `loss`, `hidden` and `every`.
        factor: of the fastest peer's time; 0 = leave nobody out.
    """
    first = next((case for case in done if all(case[key] == like[key] for key in like)), None)
    if first is None or not factor or not (there := peers(first)):
        return {}
    kept = {fastest(first, there), smallest(first, there), KDFAST, FLOOR}
    others = [name for name in first["contenders"] if present(first, name) and name not in kept]
    slower = {name: time_ratio(first, name, fastest(first, there)) for name in others}
    place = f"N = {first['positions']}, V = {first['vocab']}"
    return {
        name: f"left out: {ratio:.2g} times the fastest peer's time at {place}"
        for name, ratio in slower.items()
        if ratio > factor
    }


@dataclass(frozen=True)
class Goal:
    """What was set out to reach, against the best peer of each case.

    Attributes:
        losses: the kinds of cases, at
        hidden: this D and
        every: this share of rows; None = any.
        time: the best peer's time by kdfast's, at least.
        memory: likewise; None = no goal.
        share: of the bare matrix products in kdfast's time, at least; None = no goal.
    """

    losses: tuple[str, ...]
    hidden: int
    every: int | None
    time: float
    memory: float | None = None
    share: float | None = None


GOALS = (
    Goal(("sparse",), 256, 1, 1.3, 6),
    Goal(("sparse",), 256, 10, 12, 12),
    Goal(("dense",), 256, 1, 1.4, 4),
    Goal(("jsd",), 256, 1, 2.8, 10),
    Goal(("sparse", "dense", "jsd"), 576, None, 1.0, share=0.9),
)


@dataclass(frozen=True)
class Outcome:
    """One goal at one case.

    Attributes:
        case: where.
        what: "time", "memory" or "share".
        goal: the number to reach.
        found: the number reached.
        peer: against whom; "" for a share.
        limit: what kdfast would reach if it did nothing but its matrix products.
    """

    case: CaseResult
    what: str
    goal: float
    found: float
    peer: str
    limit: float

    @property
    def met(self) -> bool:
        """It is reached."""
        return self.found >= self.goal


def outcomes(goal: Goal, cases: list[CaseResult], *, picking: bool = True) -> Iterator[Outcome]:
    """A goal at each of its cases.

    Args:
        goal: one of `GOALS`.
        cases: of a document.
        picking: count peers that pick the supervised rows too.
    """
    for case in cases:
        if case["loss"] not in goal.losses or case["hidden"] != goal.hidden or not present(case, KDFAST):
            continue
        among = [name for name in peers(case) if picking or not ALL[name].rows]
        if goal.every not in (None, case["every"]) or not among:
            continue
        name = fastest(case, among)
        yield Outcome(case, "time", goal.time, time_ratio(case, name), name, time_ratio(case, name, FLOOR))
        name = smallest(case, among)
        found, limit = memory_ratio(case, name), memory_ratio(case, name, FLOOR)
        if goal.memory is not None and found and limit:
            yield Outcome(case, "memory", goal.memory, found, name, limit)
        if goal.share is not None:
            yield Outcome(case, "share", goal.share, time_ratio(case, FLOOR), "", 1.0)
