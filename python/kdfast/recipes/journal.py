"""`kdfast journal`: what a teacher was asked, what it answered and cost; copies; the full check. No torch in here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from kdfast.display import Display
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.first_look.files import check_named, file_problem, folder_problem
from kdfast.teacher.api.journal import Journal, Verification, copies
from kdfast.teacher.api.journal import verify as check
from kdfast.teacher.api.journal.faults import remedy, rollback_file
from kdfast.teacher.api.journal_tables import (
    pretty,
    requests_table,
    sums_table,
    verdict_text,
)
from kdfast.teacher.api.made_records import MadeRecords
from kdfast.teacher.api.overview import Filter, list_requests, whole_request
from kdfast.teacher.api.price import money
from kdfast.teacher.api.sums import changes, sum_up, time_text

Json = dict[str, Any]

_LONG = 2000
"""Requests from which on a bar is shown: they take a second."""

_MOST_LISTED = 10
_SQLITE = b"SQLite format 3\0"


class WatchedJournal(Journal):
    """A journal that is open for reading only, and tells how far a reader of all its requests is.

    Args:
        path: the file.

    Raises:
        DataError: as `Journal` raises it.
        OSError: the same.
    """

    def __init__(self, path: Path) -> None:
        self._on_page: Callable[[int], None] = lambda _: None
        try:
            super().__init__(path, read_only=True)
        except PermissionError as error:
            if rollback_file(path.resolve()).exists():
                error.add_note("`kdfast teach` does this when it goes on")
            raise

    def pages(self, condition: str = "1") -> Iterator[list[str]]:
        """The journal's pages; tells the number of requests of each that was read."""
        for hashes in super().pages(condition):
            yield hashes
            self._on_page(len(hashes))

    @contextmanager
    def shown(self, what: str, total: int) -> Iterator[None]:
        """Shows a bar on stderr inside the block, if the work is long."""
        with Display(Console(stderr=True, quiet=total < _LONG)).working(what, total) as tell:
            done = 0

            def on_page(count: int) -> None:
                nonlocal done
                done = min(total, done + count)
                tell(done, "")

            self._on_page = on_page
            yield


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
        _print_json({"requests": total, "more": more, "shown": rows})
        return
    console = Console()
    if rows:
        console.print(requests_table(rows))
    _line(console, "shown", f"{len(rows)} of {total} requests{'; --limit 0 shows all' * more}")


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
        _print_json(found)
        return
    console = Console()
    for name in ("request", "order", "sample", "endpoint", "context"):
        if found[name] != {}:
            _line(console, name, str(found[name]))
    _block(console, "body", found["body"])
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
    _line(console, f"attempt {attempt['number']}", f"{state}{status}{' (the answer)' * is_answer}")
    ended = "now" if attempt["ended_ms"] is None else time_text(attempt["ended_ms"])
    _line(console, "time", f"{time_text(attempt['begun_ms'])} to {ended}")
    _line(console, "owner", attempt["owner"])
    worst, known = f"at most {money(attempt['worst_micro'])}", attempt["cost_micro"]
    _line(console, "cost", worst if known is None else f"{money(known)} ({worst})")
    if is_answer or attempt.get("verdict"):
        _line(console, "verdict", verdict_text(attempt["verdict"]))
    for name in ("reason", "usage", "headers"):
        if attempt.get(name):
            said = attempt[name]
            _line(console, name, said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))
    for name in ("response", "response_text"):
        if name in attempt:
            _block(console, "response", attempt[name])


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
        _print_json({**found, "warnings": warnings})
        return
    console = Console()
    console.print(sums_table(found, path.name))
    if found["first_ms"] is not None:
        _line(console, "time", f"{time_text(found['first_ms'])} to {time_text(found['last_ms'])}")
    for teacher in found["teachers"][:_MOST_LISTED]:
        names = [teacher[name] for name in ("model", "provider", "system_fingerprint") if teacher[name]]
        _line(console, "answered by", f"{' / '.join(names)}: {_count(teacher['answers'], 'answer')}")
    for warning in warnings:
        _line(console, "warning", warning)


def export(path: Path, out: Path) -> None:
    """Writes all final answers as JSONL.

    Args:
        path: the journal.
        out: the file; replaced.

    Raises:
        ConfigError: `out` is the journal, or a database.
        DataError: the file is no journal, or damaged; names the remedy.
        OSError: it cannot be read, or `out` cannot be written.
    """
    _check_out(path, out)
    if _is_sqlite(out):
        raise ConfigError(f"--out: an SQLite file is there, and JSONL would replace it; name another: {out}")
    with WatchedJournal(path) as journal, journal.shown("export", journal.stats().answered):
        lines = copies.export(journal, out)
    _line(Console(), "exported", f"{_count(lines, 'answer')}, one a line: {out}")


def backup(path: Path, out: Path) -> None:
    """Writes a whole copy of the journal, also while a job writes to it.

    Args:
        path: the journal.
        out: the copy; an older copy is replaced.

    Raises:
        ConfigError: `out` is the journal, or another file than a copy.
        DataError: the file is no journal, or damaged; names the remedy.
        OSError: it cannot be read, or `out` cannot be written.
    """
    _check_out(path, out)
    if out.exists() and not _is_sqlite(out):
        raise ConfigError(f"--out: a file that is no copy of a journal is there; name another: {out}")
    with WatchedJournal(path) as journal:
        requests = journal.stats().requests
        copies.backup(journal, out)
    _line(Console(), "copied", f"{_count(requests, 'request')} with all answers, checked: {out}")


def verify(path: Path, datasets: Sequence[Path] = ()) -> None:
    """Reads and checks everything in the journal, and compares it with datasets.

    Args:
        path: the journal.
        datasets: JSONL files that `kdfast teach` wrote.

    Raises:
        ConfigError: a dataset is not there.
        DataError: the journal is not whole, or does not hold what a dataset was made from; names the remedy.
        OSError: a file cannot be read.
    """
    check_named([("--dataset", file_problem(one)) for one in datasets])
    made = MadeRecords(datasets)
    with WatchedJournal(path) as journal, journal.shown("verify", journal.stats().requests):
        found = check(journal, made.answers() if datasets else None)
    console = Console()
    _line(
        console, "read", f"{_count(found.requests, 'request')}, {_count(found.answers, 'response')}: {path}"
    )
    for fault in found.faults:
        _line(console, "fault", fault)
    if datasets:
        _print_compared(console, found, made)
    if not found.ok:
        raise DataError(_verdict_of(found, path), str(path))
    _line(console, "verdict", "whole" + ", and the records were made from its answers" * bool(made.records))


def _print_compared(console: Console, found: Verification, made: MadeRecords) -> None:
    named = ", ".join(map(str, made.paths))
    _line(console, "compared", f"{_count(made.records, 'record')}: {named}")
    if made.others:
        told = f"{_count(made.others, 'record')} without metadata.teacher.request: not compared"
        _line(console, "others", told)
    for name, hashes in (("missing", found.missing), ("differing", found.differing)):
        for one in hashes[:_MOST_LISTED]:
            _line(console, name, f"{made.places[one]}: the answer to {one[:12]}")
        if len(hashes) > _MOST_LISTED:
            _line(console, name, f"and {len(hashes) - _MOST_LISTED} more")
    if found.unwritten:
        first = ", ".join(one[:12] for one in found.unwritten[:3]) + ", ..." * (len(found.unwritten) > 3)
        told = f"{_count(len(found.unwritten), 'accepted answer')} in no dataset ({first}): no fault"
        _line(console, "not written", told)


def _verdict_of(found: Verification, path: Path) -> str:
    parts = []
    if found.faults:
        parts.append(
            f"the journal is damaged ({_count(len(found.faults), 'fault')}); {remedy(path.resolve())}"
        )
    gone = [
        f"{len(one)} {what}"
        for one, what in ((found.missing, "missing"), (found.differing, "differing"))
        if one
    ]
    if gone:
        parts.append(
            f"records were made from answers that this journal does not hold ({', '.join(gone)}); "
            "name the journal that they were made from, or write the dataset again with `kdfast teach`"
        )
    return "; ".join(parts)


def _check_out(path: Path, out: Path) -> None:
    check_named([("FILE", file_problem(path)), ("--out", folder_problem(out.parent))])
    if out.exists() and out.samefile(path):
        raise ConfigError(f"--out: is the journal itself; name another file: {out}")


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"  {name:<12} {pretty(text)}", highlight=False, soft_wrap=True, markup=False)


def _block(console: Console, name: str, value: Any) -> None:
    _line(console, name, "")
    console.print(pretty(value), highlight=False, soft_wrap=True, markup=False)


def _print_json(document: Json) -> None:
    print(json.dumps(document, indent=1))  # ASCII: whatever the encoding of the terminal is
