"""The journal: every request before it is sent, every response before it is read, in one SQLite file."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdfast.errors import BudgetReached, KdfastError
from kdfast.files import check_file
from kdfast.teacher.api.journal import owners
from kdfast.teacher.api.journal.database import Database, create_file
from kdfast.teacher.api.journal.entries import (
    ACCEPTED,
    MOST_MICRO,
    Answer,
    Attempt,
    Busy,
    GivenUp,
    Response,
    Verdict,
)
from kdfast.teacher.api.journal.headers import kept_headers, without_secret_bytes, without_secrets
from kdfast.teacher.api.journal.mounts import check_local
from kdfast.teacher.api.journal.owners import Leases
from kdfast.teacher.api.journal.reading import Reader
from kdfast.teacher.api.journal.request import Request, canonical_json

_TO_EXPIRED = "state = 'unknown', expired = 1, reason = ?, ended_ms = ?"
_CLOSED = "the journal was closed while it was in flight"
_NO_LIMIT = 2**63
_EXPIRED = "the process that sent it ended, or its lease did, without a known outcome"


class Journal(Reader):
    """What was asked of a teacher, and what it answered. A final answer is never requested again.

    Several processes may have one journal open, and several threads may use one `Journal`. Each method is one
    transaction; when it returns, its change is on the disk.

    Args:
        path: the file; made if it is not there (unless `read_only`), with its folders.
        read_only: change nothing.
        leases: name of this process, length of a lease, clock.
        secrets: texts that must not be stored, such as the key. They are replaced in responses and reasons.
        mount_table: the mounted file systems, for tests; None = this machine's.

    Raises:
        DataError: the file is no journal, is damaged, of a newer version, in WAL mode, or on a network file system.
        OSError: it cannot be opened or made.

    Examples:
        >>> import tempfile
        >>> journal = Journal(Path(tempfile.mkdtemp()) / "answers.db")
        >>> request = Request("http://localhost/v1/chat/completions", {"model": "m", "messages": []})
        >>> attempt = journal.begin_attempt(request, worst_micro=300, budget_micro=1000)
        >>> response = Response(200, {"content-type": "application/json"}, b'{"choices": []}', latency_ms=12)
        >>> answer = journal.finish_attempt(attempt, response, final=True, cost_micro=120)
        >>> journal.begin_attempt(request, worst_micro=300) == answer == journal.answered(request.hash)
        True
        >>> journal.money()
        Money(spent_micro=120, in_flight_micro=0)
        >>> journal.close()
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        leases: Leases | None = None,
        secrets: Iterable[str] = (),
        mount_table: str | None = None,
    ) -> None:
        self.path = path.resolve()
        check_local(self.path, mount_table)
        if not read_only:
            check_file(self.path)
            if not self.path.exists():
                create_file(self.path)
        self._read_only = read_only
        self.leases = leases or Leases()
        self._secrets: Collection[str] = sorted(filter(None, secrets), key=len, reverse=True)
        super().__init__(Database(self.path, read_only=read_only))
        if not read_only:
            self.expire_leases()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; may be called again. What this process has in flight gets an unknown outcome."""
        if not self._read_only:
            with suppress(OSError, KdfastError, ValueError), self.database.writing():
                self.database.change(
                    f"UPDATE attempt SET {_TO_EXPIRED} WHERE state = 'in_flight' AND owner = ?",  # noqa: S608
                    [_CLOSED, self.leases.now_ms(), self.leases.owner],
                )
        self.database.close()

    def begin_attempt(
        self,
        request: Request,
        worst_micro: int,
        *,
        budget_micro: int | None = None,
        max_unknown_retries: int | None = None,
    ) -> Attempt | Answer | Busy | GivenUp:
        """Says whether a request may be sent now. If so, the attempt is on the disk before this returns.

        Args:
            request: what to send.
            worst_micro: the most that the request can cost, in millionths of the currency.
            budget_micro: what all attempts in the journal may cost together; None = no limit.
            max_unknown_retries: how often a request whose outcome is unknown is sent again; None = no limit.

        Returns:
            an `Attempt`: send the request once, then call `finish_attempt`, `mark_unknown` or `mark_not_sent`.
            An `Answer`: the final answer is there. `Busy`: it is in flight. `GivenUp`: it was sent often enough.

        Raises:
            BudgetReached: spent + in flight + `worst_micro` would exceed the budget.
            ValueError: the amount is out of range, or the request holds a secret.
        """
        _check_micro("worst_micro", worst_micro)
        if any(secret in request.content.decode() for secret in self._secrets):
            raise ValueError(f"a request must not hold the key: {request.hash}")
        limit = _NO_LIMIT if budget_micro is None else budget_micro
        with self.database.writing(alone=True):
            self._expire(request.hash)
            blocked = self._blocked(request, max_unknown_retries)
            if blocked is not None:
                return blocked
            money = self.money()
            if money.spent_micro + money.in_flight_micro + worst_micro <= limit:
                return self._insert_attempt(request, worst_micro)
        raise BudgetReached(money.spent_micro, money.in_flight_micro, worst_micro, limit)

    def _blocked(self, request: Request, max_unknown_retries: int | None) -> Answer | Busy | GivenUp | None:
        """Why the request may not be sent now; None if it may."""
        self.database.change(
            "UPDATE request SET position = ? WHERE hash = ? AND position > ?",
            [request.order, request.hash, request.order],
        )
        answer = self.answered(request.hash)
        if answer is not None:
            return answer
        flying = self.database.row(
            "SELECT owner, until_ms FROM attempt WHERE request = ? AND state = 'in_flight'", [request.hash]
        )
        if flying is not None:
            return Busy(request.hash, *flying)
        unknown = self.unknown_outcomes(request.hash)
        if max_unknown_retries is not None and unknown > max_unknown_retries:
            return GivenUp(request.hash, unknown)
        return None

    def _insert_attempt(self, request: Request, worst_micro: int) -> Attempt:
        self.database.change(
            "INSERT INTO request (hash, content, sample, position) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [request.hash, zlib.compress(request.content), request.sample, request.order],
        )
        now = self.leases.now_ms()
        until = now + round(self.leases.seconds * 1000)
        before = self.database.rows("SELECT count(*) FROM attempt WHERE request = ?", [request.hash])
        number = before[0][0] + 1
        self.database.change(
            "INSERT INTO attempt (request, number, owner, until_ms, state, worst_micro, begun_ms)"
            " VALUES (?, ?, ?, ?, 'in_flight', ?, ?)",
            [request.hash, number, self.leases.owner, until, worst_micro, now],
        )
        made = self.database.rows("SELECT last_insert_rowid()")[0][0]
        return Attempt(made, request.hash, number, until)

    def finish_attempt(
        self,
        attempt: Attempt,
        response: Response,
        *,
        final: bool,
        cost_micro: int | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Stores a whole response, before anybody reads it. After the lease's end it is stored as well.

        Args:
            attempt: what `begin_attempt` gave.
            response: as it came. Headers that may hold secrets are dropped.
            final: whether the request is never to be sent again. False for a status such as 429.
            cost_micro: what it cost, if the status alone tells (0 for 429); None = counted with its worst case until
                `set_cost`.
            usage: what the server counted, if known already.

        Raises:
            ValueError: the attempt has ended otherwise, or a number is out of range.
            OSError: the disk is full; the attempt stays in flight.
        """
        _check_micro("cost_micro", cost_micro)
        body = without_secret_bytes(response.body, self._secrets)
        headers = without_secrets(canonical_json(kept_headers(response.headers)).decode(), self._secrets)
        values = (
            int(final), cost_micro, response.status, headers, zlib.compress(body), hashlib.sha256(body).hexdigest(),
            None if usage is None else canonical_json(dict(usage)).decode(), response.latency_ms, self.leases.now_ms(),
        )  # fmt: skip
        with self.database.writing(alone=True):
            self._end(
                attempt,
                "state = 'answered', final = ?, cost_micro = ?, status = ?, headers = ?, response = ?, digest = ?,"
                " usage = ?, latency_ms = ?, ended_ms = ?, reason = ''",
                values,
            )
            if final:
                self.database.change(
                    "UPDATE request SET answer = ? WHERE hash = ? AND answer IS NULL",
                    [attempt.id, attempt.hash],
                )
            return self.stored(attempt.id)

    def mark_unknown(self, attempt: Attempt, reason: str) -> None:
        """Notes that the server may have received a request and that no whole response came: time-out, reset.

        The attempt counts with its worst case for ever.

        Raises:
            ValueError: the attempt has ended otherwise.
        """
        self._mark(attempt, "unknown", reason)

    def mark_not_sent(self, attempt: Attempt, reason: str) -> None:
        """Notes that the server surely did not receive a request: no connection. The attempt costs nothing.

        Raises:
            ValueError: the attempt has ended otherwise.
        """
        self._mark(attempt, "not_sent", reason)

    def _mark(self, attempt: Attempt, state: str, reason: str) -> None:
        values = (state, without_secrets(reason, self._secrets), self.leases.now_ms())
        with self.database.writing(alone=True):
            self._end(attempt, "state = ?, reason = ?, ended_ms = ?, expired = 0", values)

    def _end(self, attempt: Attempt, changes: str, values: tuple[Any, ...]) -> None:
        """Ends an attempt that is in flight, or whose lease ended meanwhile."""
        changed = self.database.change(
            f"UPDATE attempt SET {changes} WHERE id = ? AND request = ?"  # noqa: S608 - our own text
            " AND (state = 'in_flight' OR (state = 'unknown' AND expired))",
            (*values, attempt.id, attempt.hash),
        )
        if changed.rowcount != 1:
            raise ValueError(f"the attempt has ended already: {attempt.id}")

    def set_cost(self, answer: Answer, cost_micro: int, usage: Mapping[str, Any] | None = None) -> Answer:
        """Sets what a stored response cost, once: a cost that is there stays, and its usage with it.

        So no later price and no other config changes what was paid.

        Args:
            answer: a stored response.
            cost_micro: in millionths of the currency.
            usage: what was counted, as a JSON object; None = keep what is stored.

        Returns:
            the answer as it is stored now.

        Raises:
            ValueError: the amount is out of range.
        """
        _check_micro("cost_micro", cost_micro)
        text = None if usage is None else canonical_json(dict(usage)).decode()
        with self.database.writing():
            self.database.change(
                "UPDATE attempt SET cost_micro = ?, usage = coalesce(?, usage) WHERE id = ? AND cost_micro IS NULL",
                [cost_micro, text, answer.id],
            )
            return self.stored(answer.id)

    def set_verdict(self, answer: Answer, verdict: Verdict) -> Answer:
        """Stores what a reader made of an answer; replaces an earlier verdict."""
        with self.database.writing():
            self.database.change(
                "INSERT INTO verdict VALUES (?, ?, ?)"
                " ON CONFLICT (attempt) DO UPDATE SET kind = excluded.kind, reason = excluded.reason",
                [answer.id, verdict.kind, without_secrets(verdict.reason, self._secrets)],
            )
        return replace(answer, verdict=verdict)

    def withdraw(self, answer: Answer, reason: str) -> None:
        """Says that a stored response is not final after all, so that its request may be sent again.

        For what only its body tells: an unknown model, a spent quota. It stays stored, with its cost.

        Raises:
            ValueError: its verdict is `accepted`.
        """
        with self.database.writing():
            verdict = self.stored(answer.id).verdict
            if verdict is not None and verdict.kind == ACCEPTED:
                raise ValueError(f"an accepted answer cannot be withdrawn: {answer.hash}")
            self.database.change(
                "UPDATE attempt SET final = 0, reason = ? WHERE id = ?",
                [without_secrets(reason, self._secrets), answer.id],
            )
            self.database.change(
                "UPDATE request SET answer = (SELECT min(id) FROM attempt WHERE request = hash AND final)"
                " WHERE answer = ?",
                [answer.id],
            )

    def make_final(self, answer: Answer) -> Answer:
        """Says that a stored response is final after all, so that its request is never sent again.

        For what only its body tells: a content filter that answers with status 403. The opposite of `withdraw`.

        Returns:
            the response as it is stored now. If another final one came before, that one stays the answer.
        """
        with self.database.writing():
            self.database.change("UPDATE attempt SET final = 1, reason = '' WHERE id = ?", [answer.id])
            self.database.change(
                "UPDATE request SET answer = ? WHERE hash = ? AND answer IS NULL", [answer.id, answer.hash]
            )
            return self.stored(answer.id)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block whose verdicts and costs are committed together: quick for thousands. Other processes wait."""
        with self.database.writing():
            yield

    def expire_leases(self) -> int:
        """Marks as unknown what was in flight and whose lease, or process, has ended; gives the number."""
        with self.database.writing():
            return self._expire(None)

    def _expire(self, request: str | None) -> int:
        now, ended = self.leases.now_ms(), 0
        flying = self.database.rows(
            "SELECT id, owner, until_ms FROM attempt WHERE state = 'in_flight' AND coalesce(request = ?, 1)",
            [request],
        )
        for attempt, owner, until in flying:
            if until <= now or (owner != self.leases.owner and owners.is_gone(owner)):
                self.database.change(
                    f"UPDATE attempt SET {_TO_EXPIRED} WHERE id = ?",  # noqa: S608 - our own text
                    [_EXPIRED, now, attempt],
                )
                ended += 1
        return ended


def _check_micro(name: str, micro: int | None) -> None:
    if micro is not None and (type(micro) is not int or not 0 <= micro <= MOST_MICRO):
        raise ValueError(f"{name} must be a whole number of millionths from 0 to {MOST_MICRO}: {micro!r}")
