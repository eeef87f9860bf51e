"""What `kdfast journal` prints and writes, on a journal in which every state of an attempt occurs."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import asked_journal
import journals
import pytest
from journals import request

from kdfast.errors import ConfigError, DataError
from kdfast.recipes import journal as recipe
from kdfast.recipes.journal import WatchedJournal
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.api.overview import Filter

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def folder() -> Iterator[Path]:
    with journals.quick_folder() as made:
        yield made


@pytest.fixture
def path(folder: Path) -> Path:
    """The journal as a job left it that was killed: an attempt is in flight."""
    made, copy = folder / "answers.db", folder / "killed.db"
    with asked_journal.build(made):
        shutil.copy(made, copy)
    copy.replace(made)
    return made


def _lines(capsys: Capsys) -> list[str]:
    """What was printed on stdout, spaces joined. Nothing may be on stderr."""
    captured = capsys.readouterr()
    assert captured.err == ""
    return [" ".join(line.split()) for line in captured.out.splitlines()]


# show, stats


def test_the_list(path: Path, capsys: Capsys) -> None:
    recipe.show_list(path, Filter())
    lines = _lines(capsys)
    assert lines[0] == "Requests to m"
    assert f"1 {request(1).hash[:12]} question 1 200 filtered: cut 0.000160 1.2" in lines
    assert f"4 {request(4).hash[:12]} question 4 not sent no connection: 0.00 -" in lines
    assert lines[-1] == "shown 7 of 7 requests"


@pytest.mark.parametrize(
    ("limit", "shown", "more"), [(0, 7, False), (3, 3, True), (7, 7, False), (9, 7, False)]
)
def test_the_limit_of_the_list(path: Path, capsys: Capsys, limit: int, shown: int, more: bool) -> None:
    recipe.show_list(path, Filter(limit=limit), as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], len(document["shown"]), document["more"]) == (7, shown, more)
    recipe.show_list(path, Filter(limit=limit))
    assert _lines(capsys)[-1] == f"shown {shown} of 7 requests" + "; --limit 0 shows all" * more


def test_a_list_without_a_request(path: Path, capsys: Capsys) -> None:
    recipe.show_list(path, Filter(verdict="nothing"))
    assert _lines(capsys) == ["shown 0 of 7 requests"]


def test_one_request(path: Path, capsys: Capsys) -> None:
    recipe.show_one(path, request(0).hash[:9].upper())
    lines = _lines(capsys)
    for line in (
        f"request {request(0).hash}",
        '"content": "question 0",',
        "attempt 1 not final, status 429, 30 ms",
        "time 2025-11-30 05:20:00 UTC to 2025-11-30 05:20:00 UTC",
        '"message": "slow down"',
        "attempt 2 answered, status 200, 400 ms (the answer)",
        "cost 0.000150 (at most 0.000900)",
        "verdict accepted",
    ):
        assert line in lines, line
    assert lines.count("verdict not read") == 0


def test_one_request_that_was_never_answered(path: Path, capsys: Capsys) -> None:
    recipe.show_one(path, request(5).hash)
    lines = _lines(capsys)
    assert "attempt 1 in flight" in lines
    assert "time 2025-11-30 05:21:02 UTC to now" in lines
    assert "cost at most 0.000900" in lines


def test_a_response_does_not_steer_the_terminal(path: Path, capsys: Capsys) -> None:
    recipe.show_one(path, request(2).hash)
    assert "<h1>\\u001b[31mno JSON\\xff</h1>" in _lines(capsys)


def test_one_request_for_machines(path: Path, capsys: Capsys) -> None:
    recipe.show_one(path, request(2).hash, as_json=True)
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["attempts"][0]["response_text"].startswith("<h1>\x1b")


def test_a_beginning_of_several_hashes_names_them(path: Path) -> None:
    with pytest.raises(ConfigError, match="HASH: several begin so, give more digits") as caught:
        recipe.show_one(path, "")
    assert all(request(number).hash[:12] in str(caught.value) for number in range(7))


@pytest.mark.parametrize("beginning", ["0" * 64, "xyz", "%", "g"])
def test_a_beginning_of_no_hash(path: Path, beginning: str) -> None:
    with pytest.raises(ConfigError, match=f"HASH: no request's hash begins so; .*: '{beginning}'"):
        recipe.show_one(path, beginning)


def test_stats(path: Path, capsys: Capsys) -> None:
    recipe.stats(path)
    lines = _lines(capsys)
    for line in ("requests 7", "answered 4 57.1 %", "accepted 2 50.0 %", "money in flight, at most 0.000900"):
        assert line in lines, line
    assert "time 2025-11-30 05:20:00 UTC to 2025-11-30 05:22:02 UTC" in lines
    assert "answered by m-1: 2 answers" in lines
    assert lines[-1].startswith("warning requests to m were answered by m-1 (2 answers, ")


def test_stats_for_machines(path: Path, capsys: Capsys) -> None:
    recipe.stats(path, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], document["money"]["in_flight_micro"]) == (7, 900)
    assert len(document["warnings"]) == 1


def test_looking_changes_nothing_also_while_a_job_writes(folder: Path, capsys: Capsys) -> None:
    path = folder / "answers.db"
    with asked_journal.build(path) as job:
        before = path.read_bytes()
        recipe.show_list(path, Filter())
        recipe.show_one(path, request(5).hash)
        recipe.stats(path)
        recipe.verify(path)
        recipe.export(path, folder / "out.jsonl")
        recipe.backup(path, folder / "copy.db")
        assert path.read_bytes() == before
        assert (folder / "copy.db").read_bytes()[100:] == before[100:]  # after the file's header
        assert asked_journal.answered(job, 8, asked_journal.reply()).final
    assert "attempts in flight 1" in _lines(capsys)


def test_a_bar_is_shown_for_long_work(path: Path, capsys: Capsys) -> None:
    with WatchedJournal(path) as journal, journal.shown("read", 2000):
        for _ in range(300):
            assert list(journal.pages())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "read 2000/2000" in captured.err


# Copies


def test_export(path: Path, folder: Path, capsys: Capsys) -> None:
    out = folder / "new" / "out.jsonl"
    recipe.export(path, out)
    assert _lines(capsys) == [f"exported 4 answers, one a line: {out}"]
    assert [json.loads(line)["order"] for line in out.read_text().splitlines()] == [0, 1, 2, 6]


def test_backup(path: Path, folder: Path, capsys: Capsys) -> None:
    out = folder / "new" / "copy.db"
    for _ in range(2):
        recipe.backup(path, out)
        assert _lines(capsys) == [f"copied 7 requests with all answers, checked: {out}"]
    assert journals.contents(out) == journals.contents(path)


def test_what_is_in_the_way_is_not_replaced(path: Path, folder: Path) -> None:
    records = folder / "records.jsonl"
    records.write_text("{}\n")
    shutil.copy(path, folder / "copy.db")
    os.link(path, folder / "same.db")
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    for write, out in (
        (recipe.backup, records),
        (recipe.export, folder / "copy.db"),
        (recipe.backup, path),
        (recipe.export, path),
        (recipe.backup, folder / "same.db"),
        (recipe.export, records / "below.jsonl"),
    ):
        with pytest.raises(ConfigError, match=r"^--out: "):
            write(path, out)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before


# verify


def _dataset(path: Path, folder: Path, **changes: dict[str, str]) -> Path:
    """A dataset of the accepted answers; `changes` by the order of the request."""
    out = folder / "out.jsonl"
    with Journal(path, read_only=True) as journal, out.open("w") as file:
        for answer in journal.all_answers():
            if answer.verdict is not None and answer.verdict.kind == "accepted":
                made = {"request": answer.hash, "response": answer.digest} | changes.get(
                    f"at_{answer.order}", {}
                )
                file.write(json.dumps({"prompt": "a", "metadata": {"teacher": made}}) + "\n")
        file.write('{"prompt": "mine", "teacher_text": "b"}\n')
    return out


def test_a_whole_journal(path: Path, capsys: Capsys) -> None:
    recipe.verify(path)
    assert _lines(capsys) == [f"read 7 requests, 5 responses: {path}", "verdict whole"]


def test_a_dataset_that_was_made_from_it(path: Path, folder: Path, capsys: Capsys) -> None:
    out = _dataset(path, folder)
    recipe.verify(path, [out])
    assert _lines(capsys)[1:] == [
        f"compared 2 records: {out}",
        "others 1 record without metadata.teacher.request: not compared",
        "verdict whole, and the records were made from its answers",
    ]


def test_accepted_answers_in_no_dataset_are_no_fault(path: Path, folder: Path, capsys: Capsys) -> None:
    empty = folder / "empty.jsonl"
    empty.write_text("")
    recipe.verify(path, [empty])
    named = f"{request(0).hash[:12]}, {request(6).hash[:12]}"
    assert _lines(capsys)[2:] == [
        f"not written 2 accepted answers in no dataset ({named}): no fault",
        "verdict whole",
    ]


def test_answers_that_it_does_not_hold(path: Path, folder: Path, capsys: Capsys) -> None:
    out = _dataset(path, folder, at_0={"request": "0" * 64}, at_6={"response": "1" * 64})
    with pytest.raises(DataError, match=r"does not hold \(1 missing, 1 differing\); name the journal"):
        recipe.verify(path, [out])
    lines = _lines(capsys)
    assert f"missing {out}:1: the answer to 000000000000" in lines
    assert f"differing {out}:2: the answer to {request(6).hash[:12]}" in lines
    assert not any(line.startswith("verdict") for line in lines)


def test_many_missing_answers_are_counted(path: Path, folder: Path, capsys: Capsys) -> None:
    out = folder / "out.jsonl"
    made = [{"request": f"{number:064x}", "response": "0" * 64} for number in range(15)]
    out.write_text("".join(json.dumps({"metadata": {"teacher": one}}) + "\n" for one in made))
    with pytest.raises(DataError, match="15 missing"):
        recipe.verify(path, [out])
    assert "missing and 5 more" in _lines(capsys)


def test_a_response_that_changed_is_a_fault(path: Path, capsys: Capsys) -> None:
    changed = sqlite3.connect(path)
    for trigger in ("response_kept",):
        sql = changed.execute("SELECT sql FROM sqlite_master WHERE name = ?", [trigger]).fetchone()[0]
        changed.execute(f"DROP TRIGGER {trigger}")
        changed.execute("UPDATE attempt SET digest = ? WHERE status = 200", ["0" * 64])
        changed.execute(sql)
    changed.commit()
    changed.close()
    with pytest.raises(DataError, match=r"damaged \(4 faults\); put a copy in its place"):
        recipe.verify(path)
    assert sum(line.startswith("fault ") for line in _lines(capsys)) == 4


# Files that are refused


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


def test_a_copy_that_is_cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        DataError, match=r"damaged .* put a copy in its place that `kdfast journal backup` wrote"
    ):
        recipe.stats(path)
