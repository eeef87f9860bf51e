"""The journal's file: what is refused when it is opened, and what survives a full disk."""

from __future__ import annotations

import errno
import random
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from journals import PAGE_BYTES, answered, begun, contents, request

from kdfast.errors import DataError
from kdfast.teacher.api.journal import Journal, Response, verify

REMEDY = "put a copy in its place that `kdfast journal backup` wrote"


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as refused:
        Journal(path)
    assert refused.value.source == str(path)
    return refused.value.message


def edit(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


# Settings


def test_a_commit_is_on_the_disk_and_in_one_file(filled: Path) -> None:
    with Journal(filled) as journal:
        names = ("journal_mode", "synchronous", "foreign_keys", "page_size", "user_version", "application_id")
        found = {name: journal.database.rows(f"PRAGMA {name}")[0][0] for name in names}
        assert found == {
            "journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "page_size": PAGE_BYTES, "user_version": 1,
            "application_id": int.from_bytes(b"kdfj", "big"),
        }  # fmt: skip
    assert [one.name for one in filled.parent.iterdir()] == ["answers.db"]


def test_a_stored_response_is_never_changed_or_removed(filled: Path) -> None:
    for statement in (
        "DELETE FROM attempt",
        "UPDATE attempt SET response = x'00'",
        "UPDATE attempt SET status = 1",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            edit(filled, statement)


# What is refused


def test_other_files_are_refused(folder: Path) -> None:
    text, empty, foreign = folder / "a.jsonl", folder / "empty.db", folder / "foreign.db"
    text.write_text('{"a": 1}\n' * 1000)
    assert "not a journal" in refusal(text)
    empty.touch()
    assert "an empty file is no journal" in refusal(empty)
    edit(foreign, "CREATE TABLE t (x)")
    assert "another program (application_id 0x00000000)" in refusal(foreign)
    assert {one.name for one in folder.iterdir()} == {"a.jsonl", "empty.db", "foreign.db"}


def test_a_newer_journal_is_refused(filled: Path) -> None:
    edit(filled, "PRAGMA user_version = 2")
    assert "written by a newer kdfast; update kdfast to read it: version 2" in refusal(filled)
    edit(filled, "PRAGMA user_version = 1", "UPDATE meta SET value = '2'")
    assert "its version or its total is missing" in refusal(filled)


def test_a_journal_in_wal_mode_is_refused(filled: Path) -> None:
    edit(filled, "PRAGMA journal_mode = WAL")
    assert "sqlite3 answers.db 'PRAGMA journal_mode=DELETE'" in refusal(filled)
    edit(filled, "PRAGMA journal_mode = DELETE")
    assert len(contents(filled)) == 40


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE verdict", "DROP TRIGGER response_kept", "CREATE TABLE t (x)", "DELETE FROM total"],
)
def test_other_tables_are_refused(filled: Path, statement: str) -> None:
    edit(filled, statement)
    assert REMEDY in refusal(filled)


def test_a_rollback_file_without_its_journal_is_refused(filled: Path) -> None:
    filled.rename(filled.with_name("moved.db"))
    stale = filled.with_name("answers.db-journal")
    stale.write_bytes(b"\0" * 512)
    assert "remove answers.db-journal to start a new journal" in refusal(filled)
    stale.unlink()
    assert contents(filled) == []


def test_what_is_not_there_is_not_made_for_reading(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(folder / "none.db", read_only=True)
    with pytest.raises(IsADirectoryError):
        Journal(folder)
    assert list(folder.iterdir()) == []


def test_a_closed_journal_says_so(filled: Path) -> None:
    journal = Journal(filled)
    journal.close()
    journal.close()
    for use in (journal.money, journal.stats, lambda: begun(journal, request())):
        with pytest.raises(ValueError, match="closed"):
            use()


# Damage


def test_a_file_cut_at_any_page_is_refused(filled: Path) -> None:
    whole = filled.read_bytes()
    assert len(whole) > 30 * PAGE_BYTES
    cut = filled.with_name("cut.db")
    for length in [
        *range(0, len(whole), PAGE_BYTES),
        *range(100, len(whole), 5 * PAGE_BYTES),
        len(whole) - 1,
    ]:
        cut.write_bytes(whole[:length])
        assert REMEDY in refusal(cut), length
    cut.write_bytes(whole + b"\0" * 100)
    assert REMEDY in refusal(cut)


@pytest.mark.slow
def test_a_changed_byte_of_the_header_is_refused_or_harmless(filled: Path) -> None:
    whole, before = filled.read_bytes(), contents(filled)
    noise, harmless, refusals = random.Random(1), set(), []
    flipped = filled.with_name("flipped.db")
    for place in [*range(100), *(noise.randrange(100, 2 * PAGE_BYTES) for _ in range(100))]:
        changed = bytearray(whole)
        changed[place] ^= noise.randrange(1, 256)
        flipped.write_bytes(changed)
        try:
            assert contents(flipped) == before, place
            with Journal(flipped) as journal:
                answered(journal, request(99))
                assert verify(journal).ok, place
        except DataError as error:
            refusals.append(error.message)
        except PermissionError:
            assert place == 18  # the version of SQLite that may write
        else:
            harmless.add(place)
        for left in ("-journal", "-wal", "-shm"):
            flipped.with_name(flipped.name + left).unlink(missing_ok=True)
    assert [one for one in refusals if REMEDY not in one and "WAL" not in one] == []
    # SQLite does not read: counters of changes, hints for caches, versions below its own, reserved bytes.
    unread = {*range(24, 28), *range(36, 59), *range(64, 68), *range(72, 100)}
    assert {place for place in harmless if place < 100} <= unread


@pytest.mark.slow
def test_a_changed_byte_of_an_answer_is_found(filled: Path) -> None:
    whole, before = filled.read_bytes(), contents(filled)
    noise, found, refusals = random.Random(2), 0, []
    for _ in range(60):
        changed = bytearray(whole)
        changed[noise.randrange(2 * PAGE_BYTES, len(whole))] ^= noise.randrange(1, 256)
        filled.write_bytes(changed)
        try:
            with Journal(filled, read_only=True) as journal:
                whole_file = verify(journal).ok
                same = [(one.hash, one.body, one.cost_micro) for one in journal.all_answers()] == before
            found += not whole_file
            assert same or not whole_file
        except DataError as error:
            refusals.append(error.message)
    assert found + len(refusals) > 40
    assert [one for one in refusals if REMEDY not in one and "WAL" not in one] == []
    filled.write_bytes(whole)


# No right to write, no room


def test_a_file_that_cannot_be_written_is_refused_and_can_be_read(filled: Path) -> None:
    code = (
        "import os, sys, pathlib; from kdfast.teacher.api.journal import Journal\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: Journal(path)\n"
        "except PermissionError as error: print(error.filename)\n"
        "journal = Journal(path, read_only=True); print(journal.stats().answered)\n"
        "try: journal.withdraw(next(journal.all_answers()), 'x')\n"
        "except PermissionError as error: print(error.filename)\n"
    )
    filled.chmod(0o444)
    filled.parent.chmod(0o555)
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(filled)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    filled.parent.chmod(0o755)
    assert done.stdout.splitlines() == [str(filled), "40", str(filled)], done.stderr


@pytest.mark.parametrize("room", [0, PAGE_BYTES, 5 * PAGE_BYTES + 100, 20 * PAGE_BYTES])
def test_a_full_disk_loses_nothing_that_was_committed(filled: Path, room: int) -> None:
    """A limit on the size of a file plays the full disk."""
    noise, stored = random.Random(3), contents(filled)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(filled)
    resource.setrlimit(resource.RLIMIT_FSIZE, (filled.stat().st_size + room, most))
    try:
        with pytest.raises(OSError, match="what was committed is kept") as full:  # noqa: PT012
            for number in range(100, 200):
                asked, body = request(number), noise.randbytes(3000)
                attempt = begun(journal, asked)
                journal.finish_attempt(attempt, Response(200, {}, body, 1), final=True, cost_micro=5)
                stored.append((asked.hash, body, 5))
        assert full.value.errno in (errno.ENOSPC, errno.EIO)
        assert full.value.filename == str(filled)
        assert [one.hash for one in journal.all_answers()] == [one[0] for one in stored]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    if room and journal.stats().in_flight:
        # With room again the response that could not be stored still can be.
        journal.finish_attempt(attempt, Response(200, {}, body, 1), final=True, cost_micro=5)
        stored.append((asked.hash, body, 5))
    journal.close()
    assert contents(filled) == stored
    with Journal(filled) as again:
        assert verify(again).ok


def test_a_database_that_may_not_grow_says_that_the_disk_is_full(filled: Path) -> None:
    """SQLite's own code for a full disk, which a limit on the size of a file does not give."""
    with Journal(filled) as journal:
        attempt = begun(journal, request(100))
        pages = journal.database.rows("PRAGMA page_count")[0][0]
        journal.database.rows(f"PRAGMA max_page_count = {pages}")
        body = random.Random(4).randbytes(50_000)
        with pytest.raises(OSError, match="no space left") as full:
            journal.finish_attempt(attempt, Response(200, {}, body, 1), final=True)
        assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(filled))
        assert journal.stats().in_flight == 1
        journal.database.rows("PRAGMA max_page_count = 1000000")
        assert journal.finish_attempt(attempt, Response(200, {}, body, 1), final=True).body == body
        assert verify(journal).ok
