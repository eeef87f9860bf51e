"""The journal from an event loop: a full disk is told at once, and a response is kept if room comes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import journals
import pytest
from teach_jobs import asked, read, settings

from kdfast.teacher.api.client import Sent
from kdfast.teacher.api.fake_clock import JumpingClock
from kdfast.teacher.api.journal import Answer, Attempt, Journal
from kdfast.teacher.api.journal_threads import JournalThreads
from kdfast.teacher.api.retry import Outcome

URL = "http://localhost/v1"
LARGE = random.Random(0).randbytes(200_000)  # noise: it cannot be packed


class TellingClock(JumpingClock):
    """Does something each time that somebody sleeps."""

    def __init__(self, does: Callable[[], object]) -> None:
        super().__init__()
        self.does = does

    async def sleep(self, seconds: float) -> None:
        self.does()
        await super().sleep(seconds)


def limit(journal: Journal, pages: int) -> None:
    journal.database.rows(f"PRAGMA max_page_count = {pages}")


def finish(
    journal: Journal, outcome: Outcome, clock: JumpingClock
) -> tuple[Answer | None, list[BaseException]]:
    failures: list[BaseException] = []

    async def scene() -> Answer | None:
        with JournalThreads(journal, read, settings(clock=clock), failures.append) as threads:
            begun = await threads.begin(asked(URL, 0))
            assert isinstance(begun, Attempt)
            limit(journal, journal.database.rows("PRAGMA page_count")[0][0])
            return await threads.finish(begun, Sent(outcome, 7))

    return asyncio.run(scene()), failures


def test_a_response_is_kept_when_room_comes(path: Path) -> None:
    with Journal(path) as journal:
        clock = TellingClock(lambda: limit(journal, 10**6))
        answer, failures = finish(journal, Outcome(status=200, body=LARGE), clock)
        assert answer is not None
        assert journal.answered(answer.hash) == answer
        assert answer.body == LARGE
        assert [str(one)[:10] for one in failures] == ["[Errno 28]"]


def test_a_disk_that_stays_full_is_an_error(path: Path) -> None:
    sleeps: list[int] = []
    with Journal(path) as journal:
        with pytest.raises(OSError, match="no space left"):
            finish(journal, Outcome(status=200, body=LARGE), TellingClock(lambda: sleeps.append(1)))
        limit(journal, 10**6)
        assert journal.stats().in_flight == 1
    assert len(sleeps) == 2
    with Journal(path) as journal:
        assert journal.stats().unknown == 1


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (Outcome(failure="connect", detail="refused"), "not_sent", "connect: refused"),
        (Outcome(failure="read_timeout"), "unknown", "read_timeout"),
        (Outcome(failure="truncated", status=200, body=b"{"), "unknown", "truncated"),
        (Outcome(failure="truncated", status=500, body=b"{"), "answered", ""),
        (Outcome(status=307), "answered", ""),
    ],
)
def test_how_an_attempt_ends(path: Path, outcome: Outcome, state: str, reason: str) -> None:
    with Journal(path) as journal:
        answer, failures = finish(journal, outcome, JumpingClock())
        row = journal.attempts(asked(URL, 0).request.hash)[0]
    assert (row.state, row.reason, row.final) == (state, reason, False)
    assert (answer is not None) == (state == "answered")
    assert failures == []
    assert row.cost_micro == (0 if state == "answered" else None)


def test_answers_that_are_there(path: Path) -> None:
    with Journal(path) as journal:
        answer = journals.answered(journal, asked(URL, 1).request)

        async def scene() -> list[Answer | None]:
            with JournalThreads(journal, read, settings(), pytest.fail) as threads:
                return await threads.stored([asked(URL, number) for number in range(3)])

        assert asyncio.run(scene()) == [None, answer, None]
