"""Errors of SQLite in plain words: each names the file, and what to do."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdfast.errors import DataError, TeacherError

BUSY_S = 60.0
"""How long a process waits for another one's commit or backup."""

_MASK = 0xFF
"""The primary part of SQLite's extended error codes."""


def rollback_file(path: Path) -> Path:
    """The file in which SQLite keeps what a transaction overwrites."""
    return path.with_name(f"{path.name}-journal")


def remedy(path: Path) -> str:
    """What to do about a damaged journal, for messages."""
    return (
        f"put a copy in its place that `kdfast journal backup` wrote (and remove {rollback_file(path).name}), "
        "or name a new file, for which every answer is paid again"
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns errors of SQLite into those of kdfast and of the operating system; each names the file.

    Raises:
        DataError: the file is damaged or no database.
        OSError: the disk is full, fails, or may not be written.
        TeacherError: another process held the file for more than `BUSY_S` seconds.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _in_plain_words(error, path) from error
    except UnicodeDecodeError as error:  # a message of SQLite that cites a damaged table
        raise DataError(
            f"not a journal, or a damaged one ({error.reason}); {remedy(path)}", str(path)
        ) from error


def _in_plain_words(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    if isinstance(error, sqlite3.ProgrammingError):
        return ValueError(f"the journal cannot be used ({error}): {path}")
    if code in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY):
        reason = "a killed writer left a transaction to undo; open it for writing"
        return PermissionError(errno.EACCES, reason, str(path))
    primary = code & _MASK
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TeacherError(
            f"another process holds the journal for over {BUSY_S:.0f} s: {path}", retryable=True
        )
    if primary in _SYSTEM:
        number, reason = _SYSTEM[primary]
        return OSError(number, f"{reason} ({error}); what was committed is kept", str(path))
    if primary in _REFUSALS:
        return DataError(f"the journal refused a change ({error}); run `kdfast journal verify`", str(path))
    return DataError(f"not a journal, or a damaged one ({error}); {remedy(path)}", str(path))


_SYSTEM = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "no space left on the disk"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "the disk failed or is full"),
    sqlite3.SQLITE_READONLY: (errno.EACCES, "it cannot be written"),
    sqlite3.SQLITE_PERM: (errno.EACCES, "it cannot be opened"),
    sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "it, or its rollback file, cannot be opened"),
}
"""The errors of the machine: SQLite's code -> the system's, in words."""

_REFUSALS = (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH)
