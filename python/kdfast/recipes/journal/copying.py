"""Copies of a journal: all of it, or its final answers."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kdfast.errors import ConfigError
from kdfast.recipes.first_look.files import check_named, file_problem, folder_problem
from kdfast.recipes.journal.lines import count, say
from kdfast.recipes.journal.watched import WatchedJournal
from kdfast.teacher.api.journal import copies

_SQLITE = b"SQLite format 3\0"


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
    say(Console(), "exported", f"{count(lines, 'answer')}, one a line: {out}")


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
    say(Console(), "copied", f"{count(requests, 'request')} with all answers, checked: {out}")


def _check_out(path: Path, out: Path) -> None:
    check_named([("FILE", file_problem(path)), ("--out", folder_problem(out.parent))])
    if out.exists() and out.samefile(path):
        raise ConfigError(f"--out: is the journal itself; name another file: {out}")


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
