"""The SQLite file below the journal: opened with checks, used in transactions, its errors in plain words."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from kdfast.errors import DataError, KdfastError
from kdfast.teacher.api.journal import schema
from kdfast.teacher.api.journal.faults import BUSY_S, remedy, rollback_file, translated

_MOST_IN_COMMIT = 64
"""Transactions of threads that share a commit."""

_POLL_S = 0.05
"""How long a thread leaves its commit to others; as a rule it is told much earlier."""


class _Batch:
    """Transactions of several threads that are committed together.

    Attributes:
        size: their number.
        done: whether they are on the disk, or failed.
        error: why they failed.
    """

    def __init__(self) -> None:
        self.size = 0
        self.done = threading.Event()
        self.error: Exception | None = None


class Database:
    """One connection to a journal's file. Threads take turns, and those that wait for the disk share a commit.

    Args:
        path: the file; must exist.
        read_only: open it for reading only.

    Raises:
        DataError: it is no journal, of a newer version, in WAL mode, or damaged; names the remedy.
        OSError: it cannot be opened, or cannot be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._batch: _Batch | None = None
        self._coming = 0
        self._coming_lock = threading.Lock()
        if path.stat().st_size == 0:  # SQLite would take it for a new database
            raise DataError(f"an empty file is no journal; {remedy(path)}", str(path))
        if not read_only:
            _check_writable(path)
        with translated(path), ExitStack() as stack:
            self._connection = stack.enter_context(closing(_connect(path, "ro" if read_only else "rw")))
            for pragma in ("foreign_keys = ON", "trusted_schema = OFF", "cell_size_check = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._check()
            if not read_only:
                self._set_up()
            stack.pop_all()

    def _check(self) -> None:
        """A hot rollback journal, left by a kill, is played back by the first read here."""
        if self._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            raise DataError(
                "the file is in WAL mode, which can lose commits; "
                f"close other programs and run: sqlite3 {self.path.name} 'PRAGMA journal_mode=DELETE'",
                str(self.path),
            )
        self._connection.execute("BEGIN")
        try:
            reason = schema.foreign(self._connection)
            if reason is not None:
                reason = f"{reason}. If it was a journal, it is damaged: {remedy(self.path)}"
            elif damage := schema.damage(self._connection, self.path.stat().st_size):
                reason = f"the journal is damaged ({damage}); {remedy(self.path)}"
        finally:
            self._connection.execute("ROLLBACK")
        if reason is not None:
            raise DataError(reason, str(self.path))

    def _set_up(self) -> None:
        self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.execute("PRAGMA synchronous = EXTRA")
        # Finds out whether the file can be written: `BEGIN IMMEDIATE` alone does not.
        self._connection.execute("UPDATE total SET one = 1 WHERE one = 0")

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[None]:
        """A transaction that is committed, on the disk, when the block ends; undone after an error.

        A commit waits for the disk several times. So threads whose blocks end while another one commits share the
        next commit: 8 threads get up to 8 times as many transactions done.

        Args:
            alone: refuse to be a part of a transaction around it, which would commit later.
        """
        batch = None
        self._count_coming(1)
        try:
            with self._lock:
                self._count_coming(-1)
                if self._depth and alone:
                    raise ValueError(
                        "an attempt cannot begin or end inside `together`: it is committed at once"
                    )
                if not self._depth:
                    batch = self._joined()
                with self._part():
                    yield
        finally:
            if batch is not None:
                self._settle(batch)
        # After an error in the block, that one is raised instead.
        if batch is not None and batch.error is not None:
            raise batch.error

    def _count_coming(self, more: int) -> None:
        with self._coming_lock:
            self._coming += more

    def _joined(self) -> _Batch:
        if self._batch is None:
            self.change("BEGIN IMMEDIATE")
            self._batch = _Batch()
        self._batch.size += 1
        return self._batch

    @contextmanager
    def _part(self) -> Iterator[None]:
        """A part of the transaction that can be undone alone."""
        self.change("SAVEPOINT part")
        self._depth += 1
        done = False
        try:
            yield
            self.change("RELEASE part")
            done = True
        finally:
            self._depth -= 1
            if not done:
                self._undo_part()

    def _undo_part(self) -> None:
        failures = (OSError, KdfastError, ValueError)
        with suppress(*failures):
            if self._connection.in_transaction:
                for statement in ("ROLLBACK TO part", "RELEASE part"):  # `executescript` would commit first
                    self.change(statement)
                return
        # SQLite has undone all of the transaction, or must do so: the disk is full, or fails.
        with suppress(*failures):
            self.change("ROLLBACK")
        self._end_batch(OSError(errno.EIO, "undone with another change that failed", str(self.path)))

    def _settle(self, batch: _Batch) -> None:
        """Returns when the batch is on the disk, or failed. The last thread that joined it commits it."""
        waited = False
        while not batch.done.is_set():
            with self._lock:
                others = self._coming and batch.size < _MOST_IN_COMMIT and not waited
                if batch is self._batch and not others:
                    self._commit()
            waited = not batch.done.wait(_POLL_S)

    def _commit(self) -> None:
        error: Exception | None = None
        try:
            self.change("COMMIT")
        except (OSError, KdfastError, ValueError) as failure:
            error = failure
        finally:
            if self._connection.in_transaction:
                error = error or OSError(errno.EINTR, "the commit was interrupted", str(self.path))
                # If this fails, too, the next one to open the file undoes the transaction.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            self._end_batch(error)

    def _end_batch(self, error: Exception | None) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.error = error
            batch.done.set()

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """A block in which this connection sees only what is on the disk, or what its own thread is changing."""
        with self._lock:
            if self._batch is not None and not self._depth:
                self._commit()
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A block in which all reads see one state of the journal. It must be short: writers wait."""
        with self._settled():
            if self._depth:
                yield
                return
            self.change("BEGIN")
            try:
                yield
            finally:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows that a query gives. All of them are fetched, so that no lock stays."""
        with self._settled(), translated(self.path):
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row that a query gives; None if there is none."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def change(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Runs one statement inside `writing`."""
        with translated(self.path):
            return self._connection.execute(sql, values)

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copies the whole database in one go. Writers of other processes wait meanwhile."""
        with self._settled():
            self._connection.backup(target)

    def close(self) -> None:
        """Closes the file; may be called again."""
        with self._settled():
            self._connection.close()


def create_file(path: Path) -> None:
    """Makes an empty journal. It appears whole; if another process makes it at the same time, that one is kept.

    Raises:
        DataError: a rollback file of a removed journal lies there.
        OSError: it cannot be written.
    """
    stale = rollback_file(path)
    if stale.exists() and not path.exists():
        raise DataError(
            f"the journal is gone, but {stale.name} is there: put the journal back, or remove {stale.name} to "
            "start a new journal",
            str(path),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    beside.unlink(missing_ok=True)
    try:
        with translated(path):
            connection = _connect(beside, "rwc")
            try:
                connection.execute("PRAGMA synchronous = EXTRA")
                schema.create(connection)
            finally:
                connection.close()
        _take_name(beside, path)
    finally:
        beside.unlink(missing_ok=True)
        rollback_file(beside).unlink(missing_ok=True)


def _take_name(beside: Path, path: Path) -> None:
    """Gives the file its name if no other file has it."""
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if not path.exists():  # a file system without hard links, such as exFAT
            beside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Forces a folder's list of files to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, BUSY_S, uri=True, isolation_level=None, check_same_thread=False)


def _check_writable(path: Path) -> None:
    for one in (path, path.parent):  # SQLite writes its rollback file beside the journal
        if not os.access(one, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(one))
