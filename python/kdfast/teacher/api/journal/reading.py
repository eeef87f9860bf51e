"""What can be asked of an open journal. Nothing here changes it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from kdfast.errors import DataError
from kdfast.teacher.api.journal.database import Database
from kdfast.teacher.api.journal.entries import Answer, AttemptRow, Money, Stats, Verdict
from kdfast.teacher.api.journal.faults import remedy
from kdfast.teacher.api.journal.request import Request

_ANSWER = """SELECT a.id, a.request, r.sample, r.position, a.number, a.final, a.status, a.headers, a.response, a.digest,
    a.latency_ms, a.usage, a.cost_micro, v.kind, v.reason
FROM attempt a JOIN request r ON r.hash = a.request LEFT JOIN verdict v ON v.attempt = a.id"""

_ANSWERED = f"{_ANSWER} WHERE a.id = (SELECT answer FROM request WHERE hash = ?)"  # noqa: S608 - our own text

_COLUMNS = tuple(field.name for field in fields(AttemptRow))
_ATTEMPTS = f"SELECT {', '.join(_COLUMNS)} FROM attempt WHERE hash = ? ORDER BY number".replace(  # noqa: S608
    "hash", "request"
)

_COUNTS = """SELECT count(*) FILTER (WHERE state = 'in_flight'), count(*) FILTER (WHERE state = 'unknown'),
    count(*) FILTER (WHERE state = 'answered' AND expired), count(*) FILTER (WHERE state = 'not_sent'),
    count(*) FILTER (WHERE state = 'answered' AND NOT final),
    count(*) FILTER (WHERE state = 'answered' AND cost_micro IS NULL)
FROM attempt"""

_VERDICTS = """SELECT v.kind, v.reason, count(*) FROM request r LEFT JOIN verdict v ON v.attempt = r.answer
WHERE r.answer IS NOT NULL GROUP BY v.kind, v.reason ORDER BY v.kind, v.reason"""

_PAGE_ROWS = 256
"""Rows that are fetched at once, so that a slow reader keeps no lock."""


class Reader:
    """The reading half of a `Journal`.

    Args:
        database: the open file.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def answered(self, request_hash: str) -> Answer | None:
        """The final answer to a request; None if there is none. Of several, the one that came first, for ever."""
        row = self.database.row(_ANSWERED, [request_hash])
        return None if row is None else self._answer(row)

    def answers(self, hashes: Iterable[str]) -> Iterator[Answer]:
        """The final answers to requests, in the order of their hashes here; what has none is left out."""
        return (answer for one in hashes if (answer := self.answered(one)) is not None)

    def all_answers(self) -> Iterator[Answer]:
        """All final answers, by the requests' order, then hash."""
        for hashes in self.pages("answer IS NOT NULL"):
            yield from self.answers(hashes)

    def pages(self, condition: str = "1") -> Iterator[list[str]]:
        """The hashes of requests by order, then hash; some hundred at once.

        Args:
            condition: SQL about a row of `request`.
        """
        last: tuple[int, str] = (-1, "")
        while True:
            found = self.database.rows(
                f"SELECT position, hash FROM request WHERE (position, hash) > (?, ?) AND {condition}"  # noqa: S608
                " ORDER BY position, hash LIMIT ?",
                [*last, _PAGE_ROWS],
            )
            if not found:
                return
            last = (found[-1][0], found[-1][1])
            yield [row[1] for row in found]

    def stored(self, attempt_id: int) -> Answer:
        """The response of an attempt, final or not.

        Raises:
            ValueError: it has none.
            DataError: it is damaged.
        """
        row = self.database.row(f"{_ANSWER} WHERE a.id = ? AND a.state = 'answered'", [attempt_id])
        if row is None:
            raise ValueError(f"no response is stored of this attempt: {attempt_id}")
        return self._answer(row)

    def request(self, request_hash: str) -> Request | None:
        """What was asked; None if no attempt at it was begun.

        Raises:
            DataError: it is damaged.
        """
        row = self.database.row("SELECT content, position FROM request WHERE hash = ?", [request_hash])
        if row is None:
            return None
        try:
            found = Request.from_content(zlib.decompress(row[0]), row[1])
        except (zlib.error, ValueError, TypeError) as error:
            raise self._damaged(f"request {request_hash}: {error}") from None
        if found.hash != request_hash:
            raise self._damaged(f"request {request_hash}: its content has another hash")
        return found

    def attempts(self, request_hash: str) -> list[AttemptRow]:
        """All attempts at a request, from the first."""
        found = self.database.rows(_ATTEMPTS, [request_hash])
        named = [dict(zip(_COLUMNS, row, strict=True)) for row in found]
        return [
            AttemptRow(**{**row, "final": bool(row["final"]), "expired": bool(row["expired"])})
            for row in named
        ]

    def find(self, beginning: str, most: int = 10) -> list[str]:
        """The hashes that begin so, sorted; at most `most`."""
        found = self.database.rows(
            "SELECT hash FROM request WHERE hash >= ? AND hash < ? ORDER BY hash LIMIT ?",
            [beginning, beginning + "g", most],  # after all hex digits
        )
        return [row[0] for row in found]

    def unknown_outcomes(self, request_hash: str) -> int:
        """How many attempts at a request have an unknown outcome."""
        sql = "SELECT count(*) FROM attempt WHERE request = ? AND state = 'unknown'"
        return int(self.database.rows(sql, [request_hash])[0][0])

    def money(self) -> Money:
        """What was spent and what is in flight, of all processes."""
        charged, in_flight = self.database.rows("SELECT charged_micro, in_flight_micro FROM total")[0]
        return Money(charged - in_flight, in_flight)

    def stats(self) -> Stats:
        """Counts of the whole journal."""
        with self.database.reading():
            requests, answered = self.database.rows("SELECT count(*), count(answer) FROM request")[0]
            in_flight, unknown, late, not_sent, not_final, uncosted = self.database.rows(_COUNTS)[0]
            verdicts = self.database.rows(_VERDICTS)
            money = self.money()
        return Stats(
            requests=requests,
            answered=answered,
            in_flight=in_flight,
            unknown=unknown,
            late=late,
            not_sent=not_sent,
            not_final=not_final,
            uncosted=uncosted,
            unread=sum(count for kind, _, count in verdicts if kind is None),
            verdicts={(kind, reason): count for kind, reason, count in verdicts if kind is not None},
            money=money,
        )

    def _answer(self, row: tuple[Any, ...]) -> Answer:
        (attempt, request, sample, order, number, final, status, headers, response, digest, latency, usage, cost,
         kind, reason) = row  # fmt: skip
        try:
            body = zlib.decompress(response)
            parsed = json.loads(headers), None if usage is None else json.loads(usage)
        except (zlib.error, ValueError, TypeError) as error:
            raise self._damaged(f"answer to {request}: {error}") from None
        if hashlib.sha256(body).hexdigest() != digest:
            raise self._damaged(f"answer to {request}: its content has another hash")
        verdict = None if kind is None else Verdict(kind, reason)
        return Answer(
            attempt, request, sample, order, number, bool(final), status, parsed[0], body, digest, latency, parsed[1],
            cost, verdict,
        )  # fmt: skip

    def _damaged(self, what: str) -> DataError:
        path = self.database.path
        return DataError(f"the journal is damaged ({what}); {remedy(path)}", str(path))
