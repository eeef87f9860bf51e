"""A journal is read while a bar is shown, and one that a killed job left is refused."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from kdfast.recipes.journal.watched import WatchedJournal
from kdfast.teacher.api.journal import Journal

Capsys = pytest.CaptureFixture[str]


def test_a_bar_is_shown_for_long_work(path: Path, capsys: Capsys) -> None:
    with WatchedJournal(path) as journal, journal.shown("read", 2000):
        for _ in range(300):
            assert list(journal.pages())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "read 2000/2000" in captured.err


def test_a_transaction_that_a_killed_job_left(path: Path) -> None:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("PRAGMA cache_spill = 1")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("CREATE TABLE large (bytes BLOB)")
    for _ in range(50):
        writer.execute("INSERT INTO large VALUES (randomblob(9000))")
    for one in (path, path.with_name(f"{path.name}-journal")):
        shutil.copy(one, one.with_name(one.name.replace("answers", "killed")))
    writer.close()
    with pytest.raises(PermissionError, match="a killed writer left a transaction") as caught:
        WatchedJournal(path.with_name("killed.db"))
    assert caught.value.__notes__ == ["`kdfast teach` does this when it goes on"]
    Journal(path.with_name("killed.db")).close()
    WatchedJournal(path.with_name("killed.db")).close()
