"""Requests of a journal and their sums as tables for people; made from the JSON values of `overview` and `sums`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from kdfast.teacher.api.price import money

Json = Mapping[str, Any]

_MOST_CHARS = 40
_MOST_TRIES = 3
_LABELS = {
    "in_flight": "attempts in flight",
    "in_flight_of_ended_processes": "  of processes that ended",
    "unknown": "attempts whose outcome is unknown",
    "not_sent": "attempts that were not sent",
    "not_final": "responses that are not final",
    "late": "responses after their lease",
}
_TOKENS = {
    "input_tokens": "tokens of prompts",
    "cached_tokens": "  read from a cache",
    "output_tokens": "tokens of answers",
    "reasoning_tokens": "  of reasoning",
}


def requests_table(rows: Sequence[Json]) -> Table:
    """A row for each request.

    Args:
        rows: at least one of `list_requests`.
    """
    models = {row["model"] or "no named model" for row in rows}
    several = len(models) > 1
    table = _empty("Requests" if several else escape(f"Requests to {one_line(models.pop())}"))
    table.add_column("order", justify="right", no_wrap=True)
    table.add_column("request" + ", model" * several, overflow="fold", min_width=12)
    table.add_column("last user words", overflow="fold", min_width=11)
    table.add_column("tries", overflow="fold", min_width=8)
    table.add_column("verdict", overflow="fold", min_width=13)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    for row in rows:
        told = verdict_text(row["verdict"]) if row["status"] else row["attempts"][-1]["reason"]
        cells = (
            str(row["order"]),
            row["request"][:12] + f"\n{one_line(row['model'] or '-')}" * several,
            one_line(row["question"]) or "-",
            _tries(row["attempts"]),
            one_line(told) or "-",
            cost_text(row["cost_micro"], known=row["cost_is_known"]),
            "-" if row["latency_ms"] is None else f"{row['latency_ms'] / 1000:.1f}",
        )
        table.add_row(*map(escape, cells))
    return table


def sums_table(sums: Json, title: str) -> Table:
    """Counts and sums of a whole journal.

    Args:
        sums: what `sum_up` gave.
        title: the table's title.
    """
    table = _empty(escape(title))
    for heading, justify in (("", "left"), ("number", "right"), ("share", "right")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for group in (_requests(sums), _attempts(sums), _money(sums), _tokens(sums), _seconds(sums)):
        for row in group:
            table.add_row(*map(escape, row))
        table.add_section()
    return table


def verdict_text(verdict: Json | None) -> str:
    """A verdict in words.

    Examples:
        >>> verdict_text({"kind": "filtered", "reason": "cut"}), verdict_text(None)
        ('filtered: cut', 'not read')
    """
    if verdict is None:
        return "not read"
    return f"{verdict['kind']}: {verdict['reason']}" if verdict["reason"] else str(verdict["kind"])


def cost_text(micro: int, *, known: bool) -> str:
    """An amount; one that is a worst case has a mark.

    Examples:
        >>> cost_text(1_500, known=True), cost_text(1_500, known=False)
        ('0.0015', '<=0.0015')
    """
    return money(micro) if known else f"<={money(micro)}"


def one_line(text: str, most: int = _MOST_CHARS) -> str:
    r"""A text in one line, cut, without control characters.

    Examples:
        >>> one_line("two\nlines\x1b[31m"), one_line("abcdefgh", 6)
        ('two lines [31m', 'abc...')
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."


def pretty(value: Any) -> str:
    r"""A JSON value, indented, or a text; control characters are written as escapes.

    Examples:
        >>> pretty({"a": "é\x9b"})
        '{\n  "a": "é\\u009b"\n}'
    """
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(
        char if char.isprintable() or char == "\n" else f"\\u{ord(char):04x}" for char in text.expandtabs(4)
    )


def _tries(attempts: Sequence[Json]) -> str:
    """How each attempt ended, a line each; the last ones of many."""
    told = [str(one["status"] or one["state"].replace("_", " ")) for one in attempts]
    hidden = len(told) - _MOST_TRIES
    return "\n".join([f"{hidden} more", *told[-_MOST_TRIES:]] if hidden > 0 else told)


def _requests(sums: Json) -> list[Sequence[str]]:
    answered = sums["answered"]
    rows = [
        ("requests", f"{sums['requests']:,}"),
        ("  answered", f"{answered:,}", _share(answered, sums["requests"])),
    ]
    rows += [
        (f"    {verdict_text(one)}", f"{one['count']:,}", _share(one["count"], answered))
        for one in sums["verdicts"]
    ]
    unread = sums["unread"]
    return [*rows, ("    not read", f"{unread:,}", _share(unread, answered))] if unread else [*rows]


def _attempts(sums: Json) -> list[Sequence[str]]:
    return [(label, f"{sums[name]:,}") for name, label in _LABELS.items() if sums[name]]


def _money(sums: Json) -> list[Sequence[str]]:
    rows = [("money spent", money(sums["money"]["spent_micro"]))]
    if sums["uncosted"]:
        rows.append(("  responses at their worst case", f"{sums['uncosted']:,}"))
    in_flight = sums["money"]["in_flight_micro"]
    return [*rows, ("money in flight, at most", money(in_flight))] if sums["in_flight"] else [*rows]


def _tokens(sums: Json) -> list[Sequence[str]]:
    counts = sums["tokens"] or {}
    rows = [(label, f"{counts[name]:,}") for name, label in _TOKENS.items() if counts.get(name)]
    missing = sums["answers"] - sums["answers_with_tokens"]
    return [*rows, ("answers without a count of tokens", f"{missing:,}")] if missing else [*rows]


def _seconds(sums: Json) -> list[Sequence[str]]:
    latencies = sums["latency_ms"] or {}
    return [(f"seconds to an answer, {rank}", f"{ms / 1000:.1f}") for rank, ms in latencies.items()]


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else ""


def _empty(title: str) -> Table:
    """A table without vertical lines and with little space: it fits 80 columns, the width of a log."""
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
