"""What `kdfast journal show` and `stats` print, on a journal in which every state of an attempt occurs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import asked_journal
import pytest
from journals import request

from kdfast.errors import ConfigError, DataError
from kdfast.recipes.journal import copying, look
from kdfast.recipes.journal.verifying import verify
from kdfast.teacher.api.overview import Filter

Capsys = pytest.CaptureFixture[str]
Printed = Callable[[], list[str]]


def test_the_list(path: Path, printed: Printed) -> None:
    look.show_list(path, Filter())
    lines = printed()
    assert lines[0] == "Requests to m"
    assert f"1 {request(1).hash[:12]} question 1 200 filtered: cut 0.000160 1.2" in lines
    assert f"4 {request(4).hash[:12]} question 4 not sent no connection: 0.00 -" in lines
    assert lines[-1] == "shown 7 of 7 requests"


@pytest.mark.parametrize(
    ("limit", "shown", "more"), [(0, 7, False), (3, 3, True), (7, 7, False), (9, 7, False)]
)
def test_the_limit_of_the_list(
    path: Path, capsys: Capsys, printed: Printed, limit: int, shown: int, more: bool
) -> None:
    look.show_list(path, Filter(limit=limit), as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], len(document["shown"]), document["more"]) == (7, shown, more)
    look.show_list(path, Filter(limit=limit))
    assert printed()[-1] == f"shown {shown} of 7 requests" + "; --limit 0 shows all" * more


def test_a_list_without_a_request(path: Path, printed: Printed) -> None:
    look.show_list(path, Filter(verdict="nothing"))
    assert printed() == ["shown 0 of 7 requests"]


def test_one_request(path: Path, printed: Printed) -> None:
    look.show_one(path, request(0).hash[:9].upper())
    lines = printed()
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


def test_one_request_that_was_never_answered(path: Path, printed: Printed) -> None:
    look.show_one(path, request(5).hash)
    lines = printed()
    assert "attempt 1 in flight" in lines
    assert "time 2025-11-30 05:21:02 UTC to now" in lines
    assert "cost at most 0.000900" in lines


def test_a_response_does_not_steer_the_terminal(path: Path, printed: Printed) -> None:
    look.show_one(path, request(2).hash)
    assert "<h1>\\u001b[31mno JSON\\xff</h1>" in printed()


def test_one_request_for_machines(path: Path, capsys: Capsys) -> None:
    look.show_one(path, request(2).hash, as_json=True)
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["attempts"][0]["response_text"].startswith("<h1>\x1b")


def test_a_beginning_of_several_hashes_names_them(path: Path) -> None:
    with pytest.raises(ConfigError, match="HASH: several begin so, give more digits") as caught:
        look.show_one(path, "")
    assert all(request(number).hash[:12] in str(caught.value) for number in range(7))


@pytest.mark.parametrize("beginning", ["0" * 64, "xyz", "%", "g"])
def test_a_beginning_of_no_hash(path: Path, beginning: str) -> None:
    with pytest.raises(ConfigError, match=f"HASH: no request's hash begins so; .*: '{beginning}'"):
        look.show_one(path, beginning)


def test_stats(path: Path, printed: Printed) -> None:
    look.stats(path)
    lines = printed()
    for line in ("requests 7", "answered 4 57.1 %", "accepted 2 50.0 %", "money in flight, at most 0.000900"):
        assert line in lines, line
    assert "time 2025-11-30 05:20:00 UTC to 2025-11-30 05:22:02 UTC" in lines
    assert "answered by m-1: 2 answers" in lines
    assert lines[-1].startswith("warning requests to m were answered by m-1 (2 answers, ")


def test_stats_for_machines(path: Path, capsys: Capsys) -> None:
    look.stats(path, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], document["money"]["in_flight_micro"]) == (7, 900)
    assert len(document["warnings"]) == 1


def test_looking_changes_nothing_also_while_a_job_writes(folder: Path, printed: Printed) -> None:
    path = folder / "answers.db"
    with asked_journal.build(path) as job:
        before = path.read_bytes()
        look.show_list(path, Filter())
        look.show_one(path, request(5).hash)
        look.stats(path)
        verify(path)
        copying.export(path, folder / "out.jsonl")
        copying.backup(path, folder / "copy.db")
        assert path.read_bytes() == before
        assert (folder / "copy.db").read_bytes()[100:] == before[100:]  # after the file's header
        assert asked_journal.answered(job, 8, asked_journal.reply()).final
    assert "attempts in flight 1" in printed()


def test_a_copy_that_is_cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        DataError, match=r"damaged .* put a copy in its place that `kdfast journal backup` wrote"
    ):
        look.stats(path)
