"""Several processes and threads use one journal."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import journals
import pytest
from journals import Clock, begun, request, response

from kdfast.errors import TeacherError
from kdfast.teacher.api.journal import (
    Attempt,
    Busy,
    GivenUp,
    Journal,
    Leases,
    Money,
    Request,
)
from kdfast.teacher.api.journal.owners import is_gone, this_process


def test_two_processes_never_send_one_request_at_once(journal: Journal, other: Journal) -> None:
    attempt = begun(journal, request())
    busy = Busy(request().hash, "one", 1_100_000)
    assert other.begin_attempt(request(), 100) == busy
    assert journal.begin_attempt(request(), 100) == busy, "nor does one process twice"
    got = journal.finish_attempt(attempt, response(), final=True)
    assert other.begin_attempt(request(), 100) == got


def test_an_ended_lease_is_an_unknown_outcome(journal: Journal, other: Journal, clock: Clock) -> None:
    begun(journal, request())
    clock.now += journals.LEASE_S - 0.001
    assert isinstance(other.begin_attempt(request(), 100, max_unknown_retries=1), Busy)
    clock.now += 0.001
    second = begun(other, request(), 100, max_unknown_retries=1)
    assert second.number == 2
    first, _ = other.attempts(request().hash)
    assert (first.state, first.expired) == ("unknown", True)
    assert other.money() == Money(100, 100)
    clock.now += journals.LEASE_S
    assert journal.begin_attempt(request(), 100, max_unknown_retries=1) == GivenUp(request().hash, 2)


def test_an_answer_that_comes_after_its_lease_is_kept(journal: Journal, other: Journal, clock: Clock) -> None:
    slow = begun(journal, request())
    clock.now += journals.LEASE_S
    got = other.finish_attempt(begun(other, request()), response("first to come"), final=True, cost_micro=10)
    late = journal.finish_attempt(slow, response("late"), final=True, cost_micro=10)
    assert journal.stored(late.id).body == b"late"
    assert journal.answered(request().hash) == got, "the first one stays the answer"
    stats = journal.stats()
    assert (stats.late, stats.unknown, stats.answered, stats.requests) == (1, 0, 1, 1)
    assert journal.money() == Money(20, 0)


def test_leases_of_a_process_that_ended_do_not_last(path: Path) -> None:
    code = (
        "import sys, journals; from pathlib import Path; from kdfast.teacher.api.journal import Journal\n"
        "journals.begun(Journal(Path(sys.argv[1])), journals.request())"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment)
    with Journal(path) as journal:
        stats = journal.stats()
        assert (stats.in_flight, stats.unknown) == (0, 1)
        assert journal.expire_leases() == 0
        assert begun(journal, request(), 100, max_unknown_retries=1).number == 2


def test_what_is_in_flight_when_the_journal_is_closed_has_an_unknown_outcome(path: Path) -> None:
    with Journal(path) as journal:
        begun(journal, request())
    with Journal(path) as again:
        assert [row.reason for row in again.attempts(request().hash)] == [
            "the journal was closed while it was in flight"
        ]
        assert begun(again, request(), 100, max_unknown_retries=1).number == 2


def test_a_process_that_lives_or_is_elsewhere_is_not_gone() -> None:
    mine = this_process()
    machine, pid, start, _ = mine.split("/")
    assert not is_gone(mine)
    assert not is_gone("one")
    assert not is_gone(f"elsewhere/{pid}/1/a")
    assert is_gone(f"{machine}/{pid}/1/a") or not start, "another process had this number before"
    assert is_gone(f"{machine}/{2**22 + 1}/{start}/a")


def test_a_journal_that_another_process_holds_for_long_can_be_tried_again(
    journal: Journal, other: Journal
) -> None:
    journal.database.rows("PRAGMA busy_timeout = 10")
    with other.together(), pytest.raises(TeacherError, match="another process holds the journal") as held:
        journal.begin_attempt(request(), 1)
    assert held.value.retryable
    assert begun(journal, request()).number == 1


def test_threads_share_a_journal(journal: Journal) -> None:
    def work() -> None:
        for number in range(10):
            made = journal.begin_attempt(request(number), 10)
            if isinstance(made, Attempt):
                journal.finish_attempt(made, response(), final=True, cost_micro=1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.money() == Money(10, 0)
    assert journal.stats().answered == 10


def test_threads_share_commits_and_each_change_is_committed_when_its_method_returns(
    journal: Journal, other: Journal
) -> None:
    commits = []

    def slow_disk(statement: str) -> None:
        if statement == "COMMIT":
            commits.append(statement)
            time.sleep(0.01)

    def work(first: int) -> int:
        seen = 0
        for number in range(first, first + 10):
            attempt = begun(journal, request(number))
            seen += len(other.attempts(attempt.hash))
            journal.finish_attempt(attempt, response(), final=True)
            seen += other.answered(attempt.hash) is not None
        return seen

    journal.database._connection.set_trace_callback(slow_disk)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(0, 80, 10))) == [20] * 8
    assert len(commits) < 160 / 2


def test_a_commit_that_fails_fails_for_all_that_share_it(
    journal: Journal, path: Path, other: Journal
) -> None:
    """A limit on the size of a file plays the full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    stored, failed = [], []

    def work(first: int) -> None:
        for number in range(first, first + 10):
            asked = Request(journals.ENDPOINT, {"noise": random.Random(number).randbytes(2000).hex()})
            try:
                stored.append(begun(journal, asked).hash)
            except OSError:
                failed.append(asked.hash)

    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100_000, most))
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(0, 80, 10)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert stored
    assert failed
    assert all(other.request(one) is not None for one in stored)
    assert all(other.request(one) is None for one in failed)
    assert other.stats().in_flight == len(stored)
    assert begun(journal, request()).number == 1


def test_leases_of_this_process_have_its_name() -> None:
    assert Leases().owner != Leases().owner
    assert abs(Leases(clock=lambda: 1.5).now_ms() - 1500) == 0


def test_a_teacher_behind_an_api_needs_no_torch() -> None:
    code = (
        "import sys, kdfast.teacher, kdfast.teacher.api.journal\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert json.loads(done.stdout.replace("'", '"')) == []
