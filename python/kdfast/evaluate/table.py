"""Evaluations as tables for people. They are made from the JSON values, so a saved file looks like a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

SHARES = {
    "parsed": "a call was found",
    "right_function": "right function",
    "schema_valid": "valid by its schema",
    "exact_match": "exact match (accepted)",
    "missed_calls": "missed calls",
    "broken_calls": "broken calls (one due)",
    "unclosed": "calls not closed",
    "false_calls": "false calls (none due)",
    "attempted_calls": "attempted (none due)",
    "cut": "cut by the token limit",
}
"""The shares of an evaluation and their labels."""

_OF_CATEGORY = {
    "valid": "schema_valid",
    "exact": "exact_match",
    "missed": "missed_calls",
    "broken": "broken_calls",
    "false": "false_calls",
    "attempted": "attempted_calls",
}
_QUALITIES = {"precision": "precision of calls", "recall": "recall of calls", "f1": "F1 of calls"}
_LENGTHS = {"p50": "length / right's, p50", "p95": "length / right's, p95"}
_LONGEST_TEXT = 300

Json = Mapping[str, Any]


def evaluation_table(columns: Mapping[str, Json]) -> Table:
    """One row per number, one column per evaluation, with 95 % intervals in brackets.

    Args:
        columns: the evaluations, by the headings of their columns. A number that an older file does not have is "-".

    Example:
        >>> from rich.console import Console
        >>> from kdfast.evaluate.summary import summary
        >>> Console(width=80).print(evaluation_table({"free": summary([])}))
        Tool calls, by generation (with 95 % intervals)
        ...
        a call was found            no prompts
        ...
    """
    table = _empty("Tool calls, by generation (with 95 % intervals)")
    table.add_column("held-out prompts", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", overflow="fold")
    found = columns.values()
    for name, label in SHARES.items():
        table.add_row(label, *(share_text(one["table"].get(name)) for one in found))
    for name, label in _QUALITIES.items():
        table.add_row(label, *(number_text(one.get("quality", {}).get(name)) for one in found))
    for name, label in _LENGTHS.items():
        ratios = [one.get("length", {}).get("ratio", {}) for one in found]
        table.add_row(label, *(number_text(ratio.get(name)) for ratio in ratios))
    return table


def category_table(evaluation: Json, title: str) -> Table:
    """One row per category.

    Args:
        evaluation: an evaluation that has `categories`.
        title: the table's title.
    """
    table = _empty(title)
    table.add_column("category", overflow="fold", min_width=8)
    for heading in ("n", *_OF_CATEGORY, "F1"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, found in evaluation["categories"].items():
        shares = [_fraction(found["table"].get(key)) for key in _OF_CATEGORY.values()]
        f1 = found["quality"].get("f1")
        shares.append("-" if f1 is None else f"{f1['value']:.2f}")
        table.add_row(escape(name or "(none)"), str(found["prompts"]), *shares)
    return table


def wrong_answers_table(answers: Sequence[Json], count: int) -> Table | None:
    """The first answers that are not right, with the reason; None if there are none, or `count` is 0.

    Args:
        answers: the answers of an evaluation.
        count: the largest number of answers to show.
    """
    wrong = [answer for answer in answers if why_wrong(answer["score"])][:count]
    if not wrong:
        return None
    table = Table(title="The first wrong answers", title_justify="left", show_lines=True, expand=True)
    table.add_column("line", justify="right", no_wrap=True)
    for heading in ("right answer", "answer", "why"):
        table.add_column(heading, ratio=1, overflow="fold")
    for answer in wrong:
        line = "-" if answer.get("line") is None else str(answer["line"])
        texts = (answer["reference_text"], answer["text"], why_wrong(answer["score"]))
        table.add_row(line, *(_text(text) for text in texts))
    return table


def why_wrong(score: Json) -> str:
    """Why an answer is not right, in words; "" if it is right.

    Example:
        >>> why_wrong({"false_call": False, "missed_call": False, "mismatch": {"reason": "value", "detail": "n: 3"}})
        'value: n: 3'
    """
    broken = score.get("calls_broken", 0)
    if score["false_call"]:
        return "no call is due: attempted" if broken and not score["parsed"] else "no call is due"
    if score["missed_call"] and not broken:
        return "no call"
    mismatch = score["mismatch"]
    return f"{mismatch['reason']}: {mismatch['detail']}" if mismatch else ""


def share_text(share: Json | None) -> str:
    """A share, and its interval if it has one.

    Examples:
        >>> share_text({"count": 3, "total": 4, "fraction": 0.75, "low": 0.25, "high": 1.0})
        '3/4 75 % (25 to 100)'
        >>> share_text({"count": 0, "total": 0, "fraction": None, "low": None, "high": None})
        'no prompts'
    """
    if share is None:
        return "-"
    if not share["total"]:
        return "no prompts"
    text = f"{share['count']}/{share['total']} {_percent(share['fraction'])} %"
    low, high = share.get("low"), share.get("high")
    return text if low is None or high is None else f"{text} ({_percent(low)} to {_percent(high)})"


def number_text(number: Json | None) -> str:
    """A number and its interval.

    Examples:
        >>> number_text({"value": 0.5, "low": 0.25, "high": 1.0})
        '0.50 (0.25 to 1.00)'
        >>> number_text(None)
        '-'
    """
    if number is None:
        return "-"
    return f"{number['value']:.2f} ({number['low']:.2f} to {number['high']:.2f})"


def not_counted_text(answers: int) -> str:
    """The note about answers with calls in formats that do not count; "" if there are none.

    Example:
        >>> not_counted_text(3)
        '3 answers hold calls in other formats than --formats names'
    """
    return f"{answers} answers hold calls in other formats than --formats names" if answers else ""


def _empty(title: str) -> Table:
    """A table without vertical lines. Two evaluations with intervals then fit 80 columns, the width of a log."""
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )


def _fraction(share: Json | None) -> str:
    return "-" if share is None or share["fraction"] is None else f"{_percent(share['fraction'])} %"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}"


def _text(text: str) -> str:
    line = " ".join(text.split())
    cut = line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + " ..."
    return escape(cut or "(nothing)")
