"""The full check of a journal, and whether it holds the answers that a dataset was made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kdfast.errors import DataError
from kdfast.teacher.api.journal.entries import ACCEPTED
from kdfast.teacher.api.journal.reading import Reader
from kdfast.teacher.api.journal.schema import ATTEMPT_TOTALS

_ACCEPTED_ANSWERS = (
    f"EXISTS (SELECT 1 FROM verdict v WHERE v.attempt = request.answer AND v.kind = '{ACCEPTED}')"  # noqa: S608
)

_MOST_FAULTS = 20
"""Faults of the file that are listed; a damaged file may have thousands."""


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        requests: requests that were read.
        answers: responses that were read, final or not.
        faults: what is wrong in the file itself.
        missing: hashes that others hold and that have no final answer in the journal.
        differing: hashes whose answer is another one than others hold.
        unwritten: accepted answers that others do not hold; no fault: they may be of another config.
    """

    requests: int
    answers: int
    faults: tuple[str, ...]
    missing: tuple[str, ...]
    differing: tuple[str, ...]
    unwritten: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the file is whole and holds all that others hold."""
        return not (self.faults or self.missing or self.differing)


def verify(journal: Reader, expected: Iterable[tuple[str, str]] | None = None) -> Verification:
    """Reads everything in a journal, checks it, and compares it with what a dataset or a store holds.

    Args:
        journal: the open journal.
        expected: (request hash, digest of the response) of each record that was made from an answer; None = compare
            with nothing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from kdfast.teacher.api.journal import Journal
        >>> with Journal(Path(tempfile.mkdtemp()) / "answers.db") as journal:
        ...     found = verify(journal, [("ab" * 32, "cd" * 32)])
        >>> found.ok, found.missing == ("ab" * 32,)
        (False, True)
    """
    faults = _faults(journal)
    requests = answers = 0
    for hashes in journal.pages():
        for one in hashes:
            requests += 1
            read, found = _request_faults(journal, one)
            answers += read
            faults += found
    missing, differing, unwritten = _compared(journal, expected)
    return Verification(requests, answers, tuple(faults[:_MOST_FAULTS]), missing, differing, unwritten)


def _faults(journal: Reader) -> list[str]:
    with journal.database.reading():
        rows = journal.database.rows(f"PRAGMA integrity_check({_MOST_FAULTS})")
        found = [str(row[0]) for row in rows if row[0] != "ok"]
        for table, row, parent, _ in journal.database.rows("PRAGMA foreign_key_check"):
            found.append(f"row {row} of {table} names a row of {parent} that is not there")
        if journal.database.rows(ATTEMPT_TOTALS) != journal.database.rows(
            "SELECT charged_micro, in_flight_micro FROM total"
        ):
            found.append("the total is not the sum of the attempts")
    return found


def _request_faults(journal: Reader, request: str) -> tuple[int, list[str]]:
    """(number of its responses, what is wrong with the request and them)."""
    found, answers = [], 0
    try:
        journal.request(request)
    except DataError as error:
        found.append(error.message)
    for attempt in journal.attempts(request):
        if attempt.state == "answered":
            answers += 1
            try:
                journal.stored(attempt.id)
            except ValueError as error:
                found.append(str(error))
    return answers, found


def _compared(
    journal: Reader, expected: Iterable[tuple[str, str]] | None
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(missing, differing, unwritten) hashes, in the order in which they are met."""
    if expected is None:
        return (), (), ()
    missing: dict[str, None] = {}
    differing: dict[str, None] = {}
    held = set()
    sql = "SELECT a.digest FROM request r JOIN attempt a ON a.id = r.answer WHERE r.hash = ?"
    for request, digest in expected:
        held.add(request)
        row = journal.database.row(sql, [request])
        if row is None:
            missing[request] = None
        elif row[0] != digest:
            differing[request] = None
    accepted = (one for hashes in journal.pages(_ACCEPTED_ANSWERS) for one in hashes if one not in held)
    return tuple(missing), tuple(differing), tuple(accepted)
