"""Requests and answers as people and machines read them: a list, one request whole, the sums."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from kdfast.errors import ConfigError
from kdfast.recipes.journal.lines import count, print_json, say, say_block
from kdfast.recipes.journal.watched import WatchedJournal
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.api.journal_tables import requests_table, sums_table, verdict_text
from kdfast.teacher.api.overview import Filter, list_requests, whole_request
from kdfast.teacher.api.price import money
from kdfast.teacher.api.sums import answered_by, changes, sum_up, time_text

Json = dict[str, Any]

_MOST_LISTED = 10


def show_list(path: Path, wanted: Filter, *, as_json: bool = False) -> None:
    """Prints a line for each request, by order.

    Args:
        path: the journal.
        wanted: which requests.
        as_json: print one JSON document.

    Raises:
        DataError: the file is no journal, or damaged; names the remedy.
        OSError: it cannot be read.
    """
    with WatchedJournal(path) as journal:
        total = journal.stats().requests
        found = list_requests(journal, wanted)
        rows = list(islice(found, wanted.limit + 1 if wanted.limit else None))
    more = 0 < wanted.limit < len(rows)
    rows = rows[: wanted.limit] if more else rows
    if as_json:
        print_json({"requests": total, "more": more, "shown": rows})
        return
    console = Console()
    if rows:
        console.print(requests_table(rows))
    say(console, "shown", f"{len(rows)} of {total} requests{'; --limit 0 shows all' * more}")


def show_one(path: Path, beginning: str, *, as_json: bool = False) -> None:
    """Prints everything about one request.

    Args:
        path: the journal.
        beginning: the first digits of its hash.
        as_json: print one JSON document.

    Raises:
        ConfigError: no request's hash begins so, or several do; names them.
        DataError: the file is no journal, or damaged; names the remedy.
        OSError: it cannot be read.
    """
    with WatchedJournal(path) as journal:
        found = whole_request(journal, _only(journal, beginning.lower()))
    if as_json:
        print_json(found)
        return
    console = Console()
    for name in ("request", "order", "sample", "endpoint", "context"):
        if found[name] != {}:
            say(console, name, str(found[name]))
    say_block(console, "body", found["body"])
    for attempt in found["attempts"]:
        console.print()
        _print_attempt(console, attempt, is_answer=attempt["number"] == found["answer"])


def _only(journal: Journal, beginning: str) -> str:
    """The one hash that begins so."""
    found = journal.find(beginning, _MOST_LISTED + 1) if set(beginning) <= set("0123456789abcdef") else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            f"HASH: no request's hash begins so; `kdfast journal show FILE` lists them: {beginning!r}"
        )
    digits = max(12, len(beginning) + 4)
    names = ", ".join(one[:digits] for one in found[:_MOST_LISTED]) + ", ..." * (len(found) > _MOST_LISTED)
    raise ConfigError(f"HASH: several begin so, give more digits ({names}): {beginning!r}")


def _print_attempt(console: Console, attempt: Json, *, is_answer: bool) -> None:
    state = attempt["state"].replace("_", " ") + ", after its lease had ended" * attempt["expired"]
    status = "" if attempt["status"] is None else f", status {attempt['status']}, {attempt['latency_ms']} ms"
    say(console, f"attempt {attempt['number']}", f"{state}{status}{' (the answer)' * is_answer}")
    ended = "now" if attempt["ended_ms"] is None else time_text(attempt["ended_ms"])
    say(console, "time", f"{time_text(attempt['begun_ms'])} to {ended}")
    say(console, "owner", attempt["owner"])
    worst, known = f"at most {money(attempt['worst_micro'])}", attempt["cost_micro"]
    say(console, "cost", worst if known is None else f"{money(known)} ({worst})")
    if is_answer or attempt.get("verdict"):
        say(console, "verdict", verdict_text(attempt["verdict"]))
    for name in ("reason", "usage", "headers"):
        if attempt.get(name):
            said = attempt[name]
            say(console, name, said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))
    for name in ("response", "response_text"):
        if name in attempt:
            say_block(console, "response", attempt[name])


def stats(path: Path, *, as_json: bool = False) -> None:
    """Prints counts and sums of the whole journal, and warns if the teacher changed.

    Args:
        path: the journal.
        as_json: print one JSON document.

    Raises:
        DataError: the file is no journal, or damaged; names the remedy.
        OSError: it cannot be read.
    """
    with WatchedJournal(path) as journal, journal.shown("read", journal.stats().requests):
        found = sum_up(journal)
    warnings = changes(found["teachers"])
    if as_json:
        print_json({**found, "warnings": warnings})
        return
    console = Console()
    console.print(sums_table(found, path.name))
    if found["first_ms"] is not None:
        say(console, "time", f"{time_text(found['first_ms'])} to {time_text(found['last_ms'])}")
    for teacher in found["teachers"][:_MOST_LISTED]:
        say(console, "answered by", f"{answered_by(teacher)}: {count(teacher['answers'], 'answer')}")
    for warning in warnings:
        say(console, "warning", warning)
