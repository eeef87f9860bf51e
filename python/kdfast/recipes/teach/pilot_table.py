"""A pilot for people: its shares, what it costs, the worst answers, and the verdict with its rules."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdfast.evaluate.table import share_text
from kdfast.recipes.teach.facts import counts_text, facts_table
from kdfast.recipes.teach.pilot import Pilot
from kdfast.recipes.teach.pilot_scores import ScoredAnswer
from kdfast.teacher.api.price import JobCost, money

_LABELS = {
    "schema_valid": "valid by its schema",
    "exact_match": "exact match (accepted)",
    "right_function": "right function",
    "missed_calls": "missed calls",
    "false_calls": "false calls (none due)",
    "attempted_calls": "attempted (none due)",
}
_LONGEST_TEXT = 300


def print_pilot(console: Console, pilot: Pilot) -> None:
    """Prints a pilot.

    Args:
        console: where to.
        pilot: what it found.
    """
    console.print(pilot_table(pilot))
    console.print(facts_table(pilot_facts(pilot)))
    if pilot.wrong:
        console.print(wrong_table(pilot.wrong))
    console.print(facts_table([("verdict", pilot.verdict), *(("", rule) for rule in pilot.rules)]))


def pilot_table(pilot: Pilot) -> Table:
    """The shares with their 95 % intervals.

    Args:
        pilot: what it found.
    """
    title = f"Pilot of {pilot.prompts} prompts (with 95 % intervals)"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("tool calls", overflow="fold")
    table.add_column("share", justify="right", overflow="fold")
    for name, label in _LABELS.items():
        table.add_row(label, share_text(pilot.shares[name]))
    return table


def pilot_facts(pilot: Pilot) -> list[tuple[str, str]]:
    """All but the shares and the verdict, as names and texts.

    Args:
        pilot: what it found.
    """
    facts: list[tuple[str, str]] = []
    if pilot.failed:
        facts.append(("failed", f"{counts_text(pilot.failed)}; a call that was due counts as missed"))
    if pilot.filtered:
        facts.append(("filtered", counts_text(pilot.filtered)))
    if pilot.bad_tools:
        facts.append(
            ("bad tools", f"{pilot.bad_tools} prompts: no valid JSON Schema, so no call counts as valid")
        )
    speed = pilot.tokens_per_second
    facts.append(("speed", "unknown" if speed is None else f"{speed:.1f} tokens/s in one answer (median)"))
    if pilot.cost_micro is None or pilot.rest.cost is None or pilot.whole is None:
        return [*facts, ("cost", "free")]
    return [
        *facts,
        ("cost of the pilot", money(pilot.cost_micro)),
        ("cost of the whole", _cost_text(pilot.whole)),
        ("  of these to come", f"{_cost_text(pilot.rest.cost)} for {pilot.rest.requests} requests"),
        ("length of answers", pilot.rest.length_source),
    ]


def wrong_table(wrong: Sequence[ScoredAnswer]) -> Table:
    """The worst answers.

    Args:
        wrong: the answers, the worst first.
    """
    table = Table(title="The worst answers", title_justify="left", show_lines=True, expand=True)
    table.add_column("line", justify="right", no_wrap=True)
    for heading in ("right answer", "the teacher's", "why"):
        table.add_column(heading, ratio=1, overflow="fold")
    for one in wrong:
        table.add_row(str(one.line), *(_short(text) for text in (one.right, one.said, one.why)))
    return table


def _cost_text(cost: JobCost) -> str:
    return f"{money(cost.low)} low, {money(cost.expected)} expected, {money(cost.worst)} worst"


def _short(text: str) -> Text:
    line = " ".join(text.split())
    return Text((line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]} ...") or "(nothing)")
