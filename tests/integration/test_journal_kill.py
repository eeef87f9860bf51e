"""The journal's promise, with processes that are killed: no answer is lost, and none is requested again."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import journal_worker
import journals
import pytest
from forking import Starter

from kdfast.teacher.api.journal import Journal, backup, exported_lines, verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def starters() -> Iterator[list[Starter]]:
    made = [Starter(journal_worker.__file__), Starter(journal_worker.__file__)]
    yield made
    for one in made:
        one.close()


def seen(path: Path) -> list[str]:
    """The hashes that reached the server, in order."""
    log = path.with_name("server.log")
    return log.read_text().split() if log.exists() else []


class Promise:
    """Checks the promise after every kill."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, bytes] = {}
        self.sent = 0

    def check(self, most_unknown: int) -> None:
        """Nothing that was committed before is lost; nothing that was answered before was sent since."""
        with Journal(self.path) as journal:
            found = verify(journal)
            assert found.ok, found.faults
            stats = journal.stats()
            answers = {one.hash: one.body for one in journal.all_answers()}
        sent = seen(self.path)
        again = collections.Counter(sent[self.sent :])
        assert [one for one in self.answers if again[one]] == []
        assert self.answers.items() <= answers.items()
        assert all(body == f"answer to {one}".encode() for one, body in answers.items())
        assert stats.in_flight == 0
        assert stats.unknown <= most_unknown
        assert len(sent) <= stats.answered + stats.not_final + stats.unknown
        self.answers, self.sent = answers, len(sent)


def lines(path: Path) -> list[bytes]:
    with Journal(path, read_only=True) as journal:
        return list(exported_lines(journal))


def test_a_kill_between_any_two_steps_loses_nothing(starters: list[Starter]) -> None:
    requests, point, killed, run = 2, 0, True, starters[0].run
    refused = {journals.request(number).hash.startswith(journal_worker.REFUSED) for number in range(requests)}
    assert refused == {True, False}, "both ways are taken"
    with journals.quick_folder() as folder:
        whole = folder / "whole" / "answers.db"
        whole.parent.mkdir()
        assert run(whole, requests) == 0
        unknown = 0
        while killed:
            point += 1
            path = folder / str(point) / "answers.db"
            path.parent.mkdir()
            promise = Promise(path)
            killed = run(path, requests, 1, point) == -signal.SIGKILL
            promise.check(most_unknown=1)
            assert run(path, requests) == 0
            promise.check(most_unknown=1)
            assert lines(path) == lines(whole), point
            with Journal(path) as journal:
                unknown += journal.stats().unknown
        assert point > 50
        assert unknown > 5, "some kills came after the request was sent"


def test_two_processes_killed_at_random_instants_lose_nothing(
    tmp_path: Path, starters: list[Starter]
) -> None:
    """On the disk, so that kills also come while a commit waits for it."""
    path, threads, noise = tmp_path / "answers.db", 4, random.Random(0)
    promise, requests, run = Promise(path), 0, starters[0].run
    for kills in range(2, 52, 2):
        requests += 10
        running = [starter.start(path, requests, threads) for starter in starters]
        time.sleep(noise.uniform(0, 0.15))
        for process in running:
            with contextlib.suppress(ProcessLookupError):  # it was done
                os.kill(process, signal.SIGKILL)
        for starter in starters:
            starter.wait()
        promise.check(most_unknown=threads * kills)
    assert run(path, requests, threads) == 0
    promise.check(most_unknown=threads * kills)
    assert len(promise.answers) == requests
    assert run(path, requests) == 0
    assert len(seen(path)) == promise.sent, "what is answered is not sent"
    with journals.quick_folder() as folder:
        whole = folder / "answers.db"
        assert run(whole, requests) == 0
        assert lines(path) == lines(whole)


def test_two_processes_share_the_work_while_a_third_makes_backups(starters: list[Starter]) -> None:
    with journals.quick_folder() as folder:
        path, requests, counts = folder / "answers.db", 300, [0]
        with Journal(path) as journal:
            for starter in starters:
                starter.start(path, requests, 2)
            while counts[-1] < requests:
                backup(journal, folder / "copy.db")
                with Journal(folder / "copy.db", read_only=True) as copy:
                    assert verify(copy).ok
                    counts.append(copy.stats().answered)
            assert [starter.wait() for starter in starters] == [0, 0]
            assert counts == sorted(counts)
            stats = journal.stats()
        assert (stats.answered, stats.unknown, stats.late) == (requests, 0, 0)
        assert len(seen(path)) == requests + stats.not_final, "none was sent twice"
