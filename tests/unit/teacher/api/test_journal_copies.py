"""Backups, exports and the full check of a journal."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import journals
import pytest
from journals import PAGE_BYTES, answered, begun, contents, request, response

from kdfast.errors import DataError
from kdfast.teacher.api.journal import Journal, Response, Verdict, backup, export, verify

PAGE = 4096
REMEDY = "put a copy in its place that `kdfast journal backup` wrote"


# Copies


def test_a_backup_is_a_whole_journal(filled: Path, folder: Path) -> None:
    copy, before = folder / "copies" / "copy.db", contents(filled)
    with Journal(filled) as journal:
        backup(journal, copy)
        answered(journal, request(50))
        assert contents(copy) == before
        backup(journal, copy)
        assert len(contents(copy)) == 41
        with pytest.raises(ValueError, match="onto itself"):
            backup(journal, filled)
        with pytest.raises(ValueError, match="onto itself"):
            export(journal, filled)
    assert [one.name for one in copy.parent.iterdir()] == ["copy.db"]
    shutil.copy(copy, filled)
    assert len(contents(filled)) == 41


def test_a_backup_does_not_replace_a_good_copy_by_a_damaged_one(filled: Path, folder: Path) -> None:
    copy, before = folder / "copy.db", contents(filled)
    with Journal(filled) as journal:
        backup(journal, copy)
        whole = filled.read_bytes()
        journal.database.rows("PRAGMA shrink_memory")  # forget the pages that were read
        root = journal.database.rows("SELECT rootpage FROM sqlite_master WHERE name = 'attempt'")[0][0]
        filled.write_bytes(
            whole[: (root - 1) * PAGE_BYTES] + b"\xff" * PAGE_BYTES + whole[root * PAGE_BYTES :]
        )
        with pytest.raises(DataError, match="damaged"):
            backup(journal, copy)
    assert contents(copy) == before
    assert sorted(one.name for one in folder.iterdir()) == ["answers.db", "copy.db"]


def test_a_backup_may_be_made_of_a_journal_opened_for_reading(filled: Path, folder: Path) -> None:
    with Journal(filled, read_only=True) as journal:
        backup(journal, folder / "copy.db")
    assert len(contents(folder / "copy.db")) == 40


def test_an_export_has_a_line_per_answer_in_a_stable_order(folder: Path) -> None:
    bodies = ['{"choices": [1]}', "no JSON é", '{"a": NaN}', '{"a": "\\ud800"}']
    for name, numbers in (("one", [0, 1, 2, 3]), ("two", [3, 1, 0, 2])):
        with Journal(folder / f"{name}.db") as journal:
            for number in numbers:
                got = answered(journal, request(number), bodies[number], cost_micro=number)
                journal.set_verdict(got, Verdict("filtered", "cut"))
            raw = journal.finish_attempt(
                begun(journal, request(4)), Response(200, {}, b"\xff\0", 7), final=True
            )
            journal.finish_attempt(begun(journal, request(5)), response("", 500), final=False)
            assert export(journal, folder / "out" / f"{name}.jsonl") == 5
    text = (folder / "out" / "one.jsonl").read_text(encoding="utf-8")
    assert text == (folder / "out" / "two.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0] == {
        "request": request(0).hash, "order": 0, "sample": 0, "endpoint": journals.ENDPOINT, "context": {},
        "body": request(0).body, "status": 200, "headers": {"content-type": "application/json"},
        "response": {"choices": [1]}, "response_digest": lines[0]["response_digest"], "usage": None,
        "cost_micro": 0, "latency_ms": 7, "verdict": {"kind": "filtered", "reason": "cut"},
    }  # fmt: skip
    assert [line.get("response_text") for line in lines] == [None, *bodies[1:], None]
    assert (lines[4]["response_base64"], lines[4]["response_digest"]) == ("/wA=", raw.digest)


# Verification


def test_verify_compares_with_what_others_hold(folder: Path) -> None:
    with Journal(folder / "answers.db") as journal:
        got = [answered(journal, request(number)) for number in range(4)]
        for one in got[:3]:
            journal.set_verdict(one, Verdict("accepted"))
        assert verify(journal).ok
        assert verify(journal).unwritten == ()
        found = verify(journal, [(one.hash, one.digest) for one in got[:3]])
        assert (found.ok, found.requests, found.answers, found.unwritten) == (True, 4, 4, ())
        found = verify(journal, [(got[0].hash, "0" * 64), ("f" * 64, got[0].digest)])
        assert (found.ok, found.missing, found.differing) == (False, ("f" * 64,), (got[0].hash,))
        assert found.unwritten == (got[1].hash, got[2].hash)


def test_verify_finds_what_the_quick_check_cannot(filled: Path) -> None:
    """A total that is no sum, and content that has another hash."""
    with Journal(filled) as journal:
        taken = journal.database.rows("SELECT hash, content FROM request ORDER BY position LIMIT 2")
    connection = sqlite3.connect(filled)
    connection.execute("UPDATE total SET charged_micro = 1")
    connection.execute("UPDATE request SET content = ? WHERE hash = ?", [taken[1][1], taken[0][0]])
    connection.execute("UPDATE request SET content = ? WHERE hash = ?", [b"no zlib", taken[1][0]])
    connection.commit()
    connection.close()
    with Journal(filled) as journal:
        faults = verify(journal).faults
        assert "the total is not the sum of the attempts" in faults
        assert [taken[0][0] in fault for fault in faults].count(True) == 1
        assert [taken[1][0] in fault for fault in faults].count(True) == 1
        with pytest.raises(DataError, match="its content has another hash"):
            journal.request(taken[0][0])


def test_nothing_is_left_beside_a_new_journal(folder: Path) -> None:
    Journal(folder / "a" / "b" / "answers.db").close()
    assert [one.name for one in (folder / "a" / "b").iterdir()] == ["answers.db"]
    assert (folder / "a" / "b" / "answers.db").stat().st_nlink == 1
