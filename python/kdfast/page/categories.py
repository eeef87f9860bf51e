"""Tool calls by category, how long answers were, and why calls were not exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.page.charts import Estimate
from kdfast.page.shares import estimates
from kdfast.page.wording import number
from kdfast.runs.node import Node

COLUMNS = {
    "schema_valid": "valid calls",
    "exact_match": "exact matches",
    "f1": "F1",
    "false_calls": "false calls",
    "broken_calls": "broken calls",
    "attempted_calls": "attempted calls",
}
"""The shares that are shown for each category, and their headings."""

_REASONS = {
    "no_call": "no call",
    "broken_call": "a broken call",
    "no_truth": "no right answer in the data",
    "count": "number of calls",
    "function": "other function",
    "required": "required argument not given",
    "unexpected": "unknown argument",
    "type": "type of an argument",
    "value": "value of an argument",
    "missing": "argument not given",
}


@dataclass(frozen=True, kw_only=True)
class Category:
    """One category of prompts.

    Attributes:
        name: the category's name.
        prompts: how many prompts it has.
        cells: (before, after) for each of `COLUMNS`; None = not in the file, or no such prompt.
    """

    name: str
    prompts: int
    cells: Sequence[tuple[Estimate | None, Estimate | None]]


def categories(before: Node | None, after: Node | None) -> list[Category]:
    """The categories of the evaluation after training; empty if there is only one.

    Raises:
        DataError: a file is not as `kdfast train` writes it; the message names file and key.
    """
    groups = [(side.find("categories") if side is not None else None) for side in (before, after)]
    sides = [dict(group.items()) if group is not None else {} for group in groups]
    if len(sides[1]) < 2:
        return []
    found = []
    for name, node in sides[1].items():
        old, new = estimates(sides[0].get(name)), estimates(node)
        cells = [(old.get(column), new.get(column)) for column in COLUMNS]
        found.append(Category(name=name or "(none)", prompts=node["prompts"].count(), cells=cells))
    return found


def answer_facts(evaluation: Node | None) -> list[tuple[str, str]]:
    """(what, value) in words: how long answers were, and why calls were not exact.

    Examples:
        >>> ratio = {"count": 9, "p50": {"value": 1.0, "low": 0.9, "high": 1.25}, "p95": {"value": 2.5}}
        >>> answer_facts(Node({"length": {"ratio": ratio}}, "evaluation.json", "make it again"))
        [('length against the right answer', 'median 1 (95 %: 0.9 to 1.25), p95 2.5')]
    """
    if evaluation is None:
        return []
    facts = []
    length = evaluation.find("length")
    ratio = length.find("ratio") if length is not None else None
    if ratio is not None and ratio["count"].count():
        told = ", ".join(
            f"{name} {_quantile(ratio[key])}" for key, name in (("p50", "median"), ("p95", "p95"))
        )
        facts.append(("length against the right answer", told))
    reasons = evaluation.find("mismatches")
    if reasons is not None and reasons.object():
        told = ", ".join(f"{_REASONS.get(name, name)} {node.count()}" for name, node in reasons.items())
        facts.append(("not exact because of", told))
    return facts


def _quantile(node: Node) -> str:
    low, high = node.find("low"), node.find("high")
    value = number(node["value"].number())
    if low is None or high is None:
        return value
    return f"{value} (95 %: {number(low.number())} to {number(high.number())})"
