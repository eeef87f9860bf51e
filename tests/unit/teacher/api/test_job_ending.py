"""How a job of an API teacher ends: the money, a wish to stop, failures, a full disk. Nothing is lost."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from teach_jobs import (
    COST_MICRO,
    KEY,
    POLICY,
    WORST_MICRO,
    RawServer,
    asked,
    many,
    read,
    run_job,
    settings,
)

from kdfast.errors import BudgetReached, DataError
from kdfast.teacher.api.fake_clock import JumpingClock
from kdfast.teacher.api.fake_replies import http_response
from kdfast.teacher.api.fake_server import FakeServer, by_index, by_text
from kdfast.teacher.api.job_report import Event
from kdfast.teacher.api.journal import Answer, Journal
from kdfast.teacher.api.pacing import MonotonicClock
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import Reading


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path, secrets=[KEY]) as opened:
        yield opened


def test_the_budget_is_spent_and_never_exceeded_across_jobs(journal: Journal) -> None:
    with FakeServer() as server:
        items = many(server.url, 30)
        limits = settings(budget_micro=250)
        first = run_job(items, journal, limits)
        assert (first.result.ended, first.result.answered, first.result.left) == ("budget", 16, 14)
        assert isinstance(first.result.error, BudgetReached)
        assert journal.money().spent_micro == 160  # one more could cost 100
        second = run_job(items, journal, limits)
        assert (second.result.ended, second.result.reused, second.result.sent) == ("budget", 16, 0)
        third = run_job(items, journal, settings(budget_micro=30 * COST_MICRO + WORST_MICRO))
    assert (third.result.ended, third.result.reused, third.result.answered) == ("done", 16, 14)
    assert set(server.seen.values()) == {1}


def test_a_budget_below_the_first_worst_case_sends_nothing(journal: Journal) -> None:
    with FakeServer() as server:
        ran = run_job(many(server.url, 5), journal, settings(budget_micro=WORST_MICRO - 1))
    assert (ran.result.ended, ran.result.left, server.seen.total()) == ("budget", 5, 0)


def test_answers_that_nobody_reads_cost_what_the_server_says(journal: Journal) -> None:
    refusal = {
        "error": {"message": "Provider returned an error"},
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
    }
    with RawServer([http_response(200, json.dumps(refusal).encode())]) as server:
        run_job([asked(server.url, 0)], journal)
    assert journal.money().spent_micro == COST_MICRO
    assert journal.stats().verdicts == {("failed", "error_in_answer"): 1}


class StopAfter:
    """Asks to stop after some events of a kind."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.left = kind, count

    def on_event(self, event: Event) -> None:
        self.left -= event.kind == self.kind

    def requested(self) -> bool:
        return self.left <= 0


def test_a_stop_in_the_middle_drains_what_is_in_flight(journal: Journal) -> None:
    stop = StopAfter("answered", 10)
    with FakeServer(latency_s=0.005) as server:
        items = many(server.url, 60)
        first = run_job(items, journal, on_event=stop.on_event, stop_requested=stop.requested)
        stats = journal.stats()
        assert (first.result.ended, first.result.error, stats.in_flight) == ("stopped", None, 0)
        assert 10 <= first.result.answered == server.seen.total() == stats.answered <= 10 + 8
        assert first.result.left == 60 - first.result.answered
        second = run_job(items, journal)
    assert (second.result.ended, second.result.reused) == ("done", first.result.answered)
    assert set(server.seen.values()) == {1}


@pytest.mark.parametrize(("behaviour", "kind"), [("rate_limit_seconds", "waiting"), ("error_500", "retried")])
def test_a_stop_ends_long_waits(journal: Journal, behaviour: str, kind: str) -> None:
    """A gate that is closed for most of an hour, a back-off of up to an hour."""
    stop = StopAfter(kind, 1)
    policy = replace(POLICY, backoff_s=3000.0, max_backoff_s=3000.0)
    limits = settings(2, clock=MonotonicClock(), policy=policy)
    with FakeServer(lambda _: behaviour, wait_s=3000) as server:
        ran = run_job(
            many(server.url, 9), journal, limits, on_event=stop.on_event, stop_requested=stop.requested
        )
    assert (ran.result.ended, ran.result.left, journal.stats().in_flight) == ("stopped", 9, 0)


def test_an_error_of_whoever_asks_to_stop_ends_the_job(journal: Journal) -> None:
    """While the one worker waits for most of an hour, so that only the watcher asks."""
    stop = StopAfter("waiting", 1)

    def requested() -> bool:
        if stop.requested():
            raise RuntimeError("nobody can stop this any more")
        return False

    limits = settings(1, clock=MonotonicClock())
    with (
        FakeServer(lambda _: "rate_limit_seconds", wait_s=3000) as server,
        pytest.raises(RuntimeError, match="nobody can stop this any more"),
    ):
        run_job(many(server.url, 9), journal, limits, on_event=stop.on_event, stop_requested=requested)
    assert journal.stats().in_flight == 0


def test_a_stop_before_the_start_reads_and_sends_nothing(journal: Journal) -> None:
    with FakeServer() as server:
        run_job(many(server.url, 2), journal)
        ran = run_job(many(server.url, 4), journal, stop_requested=lambda: True)
    assert (ran.result.ended, ran.result.left, ran.kinds(), server.seen.total()) == ("stopped", 4, [], 2)


def test_failures_in_a_row_end_the_job(journal: Journal) -> None:
    choose = by_index(["bad_request"] * 4 + ["ok"] + ["bad_request"] * 90)
    with FakeServer(choose) as server:
        ran = run_job(many(server.url, 40), journal, settings(1, max_failures_in_a_row=5))
    assert (ran.result.ended, ran.result.failed, ran.result.answered) == ("error", 9, 1)
    assert server.seen.total() == 10
    assert str(ran.result.error).startswith(
        "the teacher's server: 5 requests in a row failed, the last one: "
    )


def test_a_refusal_of_the_job_stops_it_after_what_is_in_flight(journal: Journal) -> None:
    with FakeServer(by_text({"question 6": "forbidden"})) as server:
        ran = run_job(many(server.url, 200), journal, settings(4))
    stats = journal.stats()
    assert ran.result.ended == "error"
    assert "not supported" in str(ran.result.error)
    assert (stats.in_flight, stats.not_final) == (0, 1)
    assert stats.answered + 1 == server.seen.total() == ran.result.answered + 1
    assert ran.result.left == 200 - ran.result.answered


def test_a_reader_that_fails_ends_the_job_and_loses_nothing(journal: Journal) -> None:
    def fails(one: Asked, answer: Answer) -> Reading:
        if one.prompt.index == 5:
            raise RuntimeError("a defect of the reader")
        return read(one, answer)

    with FakeServer(latency_s=0.005) as server:
        items = many(server.url, 50)
        with pytest.raises(RuntimeError, match="a defect of the reader"):
            run_job(items, journal, reader=fails)
        stats = journal.stats()
        assert (stats.in_flight, stats.unknown) == (0, 0)
        assert stats.answered == server.seen.total() < 50
        run_job(items, journal)
    assert set(server.seen.values()) == {1}


def test_a_listener_that_fails_ends_the_job_and_loses_nothing(journal: Journal) -> None:
    def fails(event: Event) -> None:
        raise RuntimeError(f"no screen for {event.kind}")

    with FakeServer(latency_s=0.005) as server, pytest.raises(RuntimeError, match="no screen for answered"):
        run_job(many(server.url, 50), journal, on_event=fails)
    assert journal.stats().answered == server.seen.total() < 50


class RoomClock(JumpingClock):
    """While somebody waits for room on the disk, somebody makes it."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    async def sleep(self, seconds: float) -> None:
        if seconds == 1.0:
            self.journal.database.rows("PRAGMA max_page_count = 1000000")
        await super().sleep(seconds)


def test_a_full_disk_ends_the_job_and_loses_nothing(journal: Journal) -> None:
    def fill(event: Event) -> None:
        pages = journal.database.rows("PRAGMA page_count")[0][0]
        journal.database.rows(f"PRAGMA max_page_count = {pages}")

    with FakeServer(latency_s=0.005) as server:
        items = many(server.url, 60)
        with pytest.raises(OSError, match="no space left"):
            run_job(items, journal, settings(clock=RoomClock(journal)), on_event=fill)
        journal.database.rows("PRAGMA max_page_count = 1000000")
        stats = journal.stats()
        assert stats.answered == server.seen.total() < 60
        assert stats.in_flight == stats.unknown == 0
        again = run_job(items, journal)
    assert again.result.reused == stats.answered
    assert set(server.seen.values()) == {1}


def test_damage_is_raised_before_anything_is_sent(journal: Journal, path: Path) -> None:
    with FakeServer() as server:
        items = many(server.url, 4)
        run_job(items, journal)
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TRIGGER response_kept")
            connection.execute("UPDATE attempt SET digest = 'other' WHERE id = 2")
        connection.close()
        with pytest.raises(DataError, match="the journal is damaged"):
            run_job([*items, asked(server.url, 9)], journal)
        assert server.seen.total() == 4
