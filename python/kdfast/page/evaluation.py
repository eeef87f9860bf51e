"""The section of tool calls: shares before and after training, outcomes, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.categories import Category, answer_facts, categories
from kdfast.page.charts import Estimate, interval, stack
from kdfast.page.outcome import CUT_SILENT, OUTCOMES, Answer, Outcome, parts, read_answers
from kdfast.page.shares import estimates, reason
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles, there

_LABELS = {
    "parsed": "a call was found",
    "right_function": "right function",
    "schema_valid": "valid against its schema",
    "exact_match": "exact match (accepted values)",
    "missed_calls": "missed calls",
    "broken_calls": "broken calls",
    "unclosed": "calls that are not closed",
    "false_calls": "false calls (no tool fits)",
    "attempted_calls": "of these attempted only in part",
    "cut": "cut at the longest length",
    "f1": "F1 of calls",
    "precision": "right calls of those made",
    "recall": "right calls of those due",
}
_FEWER_IS_BETTER = ("missed_calls", "broken_calls", "unclosed", "false_calls", "attempted_calls", "cut")
_EXAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """One share, before and after training.

    Attributes:
        label: the share's name.
        before: the share before training; None = not in the file.
        after: the share after training; None = not in the file.
        why: (before, after) the reason to show if the share is not in the file.
        fewer_is_better: whether a lower share is the better one.
        chart: the drawing of both shares.
    """

    label: str
    before: Estimate | None
    after: Estimate | None
    why: tuple[str, str]
    fewer_is_better: bool
    chart: Markup


@dataclass(frozen=True, kw_only=True)
class Example:
    """One prompt's answers before and after training; `before` is None if there is none to compare with."""

    before: Answer | None
    after: Answer


@dataclass(frozen=True, kw_only=True)
class Group:
    """The prompts whose answers after training had the same outcome, and a few of them as examples."""

    outcome: Outcome
    count: int
    examples: Sequence[Example]


@dataclass(frozen=True, kw_only=True)
class EvaluationSection:
    """What the page shows of the evaluations before and after training.

    `when` is "before" or "after".

    Attributes:
        missing: (when, file) for each evaluation file that is missing.
        rows: the shares.
        intervals: whether any share has an interval.
        without_intervals: the names of the files of which no share has an interval, in words; "" = none.
        outcomes: (kind of prompt, number of prompts, [(when, bar)]).
        groups: examples by outcome.
        categories: the shares of each category; empty if there is only one.
        facts: (when, what, value) for lengths and mismatches.
        cut_silent: how many prompts without a fitting tool got an answer, after training, that was cut before any call.
    """

    missing: Sequence[tuple[str, Missing]]
    rows: Sequence[Row]
    intervals: bool
    without_intervals: str
    outcomes: Sequence[tuple[str, int, Sequence[tuple[str, Markup]]]]
    groups: Sequence[Group]
    categories: Sequence[Category]
    facts: Sequence[tuple[str, str, str]]
    cut_silent: int


def evaluation_section(files: RunFiles) -> EvaluationSection:
    """Collects what the page shows of the evaluations.

    Raises:
        DataError: a file is not as `kdfast train` writes it; names file and key.
    """
    sides = {"before": files.before, "after": files.after}
    shares = {when: estimates(there(side)) for when, side in sides.items()}
    answers = {when: read_answers(side) for when, side in sides.items() if not isinstance(side, Missing)}
    rows = [_row(name, files.before, files.after) for name in _order(shares)]
    intervals = {when: any(one.interval for one in side.values()) for when, side in shares.items() if side}
    return EvaluationSection(
        missing=[(when, side) for when, side in sides.items() if isinstance(side, Missing)],
        rows=rows,
        intervals=any(intervals.values()),
        without_intervals=" and ".join(
            f"evaluation_{when}.json" for when, found in intervals.items() if not found
        ),
        outcomes=[
            line for call_due in (True, False) if (line := _outcomes(answers, call_due=call_due)) is not None
        ],
        groups=_groups(answers.get("before"), answers.get("after", [])),
        categories=categories(there(files.before), there(files.after)),
        facts=[
            (when, what, value) for when, side in sides.items() for what, value in answer_facts(there(side))
        ],
        cut_silent=sum(answer.outcome is CUT_SILENT for answer in answers.get("after", [])),
    )


def _order(shares: dict[str, dict[str, Estimate]]) -> list[str]:
    """The shares' names in the order of `_LABELS`, then those without a label."""
    present = list(dict.fromkeys([*shares["after"], *shares["before"]]))
    known = [name for name in _LABELS if name in present]
    return known + [name for name in present if name not in _LABELS]


def _row(name: str, *sides: Node | Missing) -> Row:
    before, after = (estimates(there(side)).get(name) for side in sides)
    why = tuple(side.short if isinstance(side, Missing) else reason(side, name) for side in sides)
    return Row(
        label=_LABELS.get(name, name.replace("_", " ")),
        before=before,
        after=after,
        why=(why[0], why[1]),
        fewer_is_better=name in _FEWER_IS_BETTER,
        chart=interval(before, after),
    )


def _outcomes(
    answers: dict[str, list[Answer]], *, call_due: bool
) -> tuple[str, int, list[tuple[str, Markup]]] | None:
    bars, prompts = [], 0
    for when, side in answers.items():
        divided = parts(side, call_due=call_due)
        prompts = sum(int(part.amount) for part in divided)
        if prompts:
            bars.append((when, stack(divided)))
    kind = "Where a call is due" if call_due else "Where no tool fits"
    return (kind, prompts, bars) if bars else None


def _groups(before: list[Answer] | None, after: list[Answer]) -> list[Group]:
    """Examples of every outcome. The worst comes first, because readers look for mistakes."""
    same = before is not None and len(before) == len(after)
    groups = []
    for outcome in sorted(OUTCOMES, key=lambda one: (not one.call_due, -OUTCOMES.index(one))):
        found = [answer for answer in after if answer.outcome is outcome]
        examples = [
            Example(before=before[answer.number - 1] if same and before is not None else None, after=answer)
            for answer in found[:_EXAMPLES]
        ]
        if examples:
            groups.append(Group(outcome=outcome, count=len(found), examples=examples))
    return groups
