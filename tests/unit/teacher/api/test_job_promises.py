"""What a job of an API teacher promises beside: several processes share the work, order, bounds, the key."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import journals
import pytest
from teach_jobs import (
    ANSWER,
    KEY,
    UNKNOWN,
    WORST_MICRO,
    asked,
    many,
    rows,
    run_job,
    settings,
)

from kdfast.errors import DataError
from kdfast.teacher.api.fake_replies import FakeRequest
from kdfast.teacher.api.fake_server import FakeServer, by_text
from kdfast.teacher.api.job_report import Event, JobResult
from kdfast.teacher.api.journal import Journal, Verdict
from kdfast.teacher.asked import Asked


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path, secrets=[KEY]) as opened:
        yield opened


def test_what_another_process_sends_is_awaited_and_others_go_on(journal: Journal, path: Path) -> None:
    with Journal(path) as other, FakeServer() as server:
        items = many(server.url, 12)
        attempt = journals.begun(other, items[0].request)

        def answer(event: Event) -> None:
            if event.asked.prompt.index == 11 and event.kind == "answered":
                message = {"role": "assistant", "content": "echo: question 0"}
                body = json.dumps(
                    {"model": "fake", "choices": [{"message": message, "finish_reason": "stop"}]}
                )
                other.finish_attempt(attempt, journals.response(body), final=True)

        ran = run_job(items, journal, settings(4), on_event=answer)
    assert (ran.result.answered, ran.result.reused, ran.result.left) == (11, 1, 0)
    assert ran.kinds(0) == ["reused", "origin_changed"]  # the other one's answer has no fingerprint
    assert server.texts["question 0"] == 0


def test_what_another_process_lost_is_sent_when_its_lease_ends(path: Path) -> None:
    hand = journals.Clock()
    with (
        Journal(path, leases=journals.leases("one", hand)) as journal,
        Journal(path, leases=journals.leases("two", hand)) as other,
        FakeServer() as server,
    ):
        items = many(server.url, 5)
        journals.begun(other, items[0].request, worst_micro=WORST_MICRO)

        def wait(event: Event) -> None:
            hand.now += journals.LEASE_S if event.asked.prompt.index == 4 else 0.0

        ran = run_job(items, journal, on_event=wait)
        assert rows(journal, items[0]) == [UNKNOWN, ANSWER]
    assert (ran.result.answered, ran.result.unknown) == (5, 0)


def test_two_jobs_share_the_work(path: Path) -> None:
    results: dict[int, JobResult] = {}

    def work(number: int, url: str) -> None:
        with Journal(path) as own:
            results[number] = run_job(many(url, 60), own, settings(4)).result

    with FakeServer(latency_s=0.002) as server:
        Journal(path).close()
        jobs = [threading.Thread(target=work, args=(number, server.url)) for number in range(2)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    assert set(server.seen.values()) == {1}
    assert len(server.seen) == 60
    assert [result.reused + result.answered for result in results.values()] == [60, 60]
    assert sum(result.answered for result in results.values()) == 60
    with Journal(path) as journal:
        assert journal.stats().unknown == 0


def test_the_same_request_twice_in_a_job_is_sent_once(journal: Journal) -> None:
    with FakeServer(by_text({"1": "content_filter"})) as server:
        items = [asked(server.url, number % 3, order=number) for number in range(9)]
        ran = run_job(items, journal)
    assert sorted(server.seen.values()) == [1, 1, 1]
    assert (ran.result.answered, ran.result.failed, ran.result.reused) == (2, 1, 6)
    assert ran.result.verdicts == {Verdict("accepted"): 6, Verdict("failed", "content_filter"): 3}


def test_requests_start_in_their_order(journal: Journal) -> None:
    texts = list[str]()

    def choose(request: FakeRequest) -> str:
        texts.append(request.text)
        return "ok"

    with FakeServer(choose) as server:
        items = many(server.url, 20)[::-1]
        run_job(items, journal, settings(1))
    assert texts == [one.prompt.prompt for one in items]


def test_tasks_are_bounded_by_the_concurrency(journal: Journal) -> None:
    most = 0

    def count(_: Event) -> None:
        nonlocal most
        own = [
            task for task in asyncio.all_tasks() if str(task.get_coro()).startswith("<coroutine object Job.")
        ]
        most = max(most, len(own))

    with FakeServer() as server:
        ran = run_job(many(server.url, 30), journal, settings(4), on_event=count)
    assert ran.result.answered == 30
    assert 2 <= most <= 4 + 1  # one more watches for a stop
    assert server.most_at_once <= 4


def test_another_origin_is_told_once(journal: Journal) -> None:
    def models(url: str, names: str) -> list[Asked]:
        return [asked(url, number, model=name) for number, name in enumerate(names)]

    with FakeServer() as server:
        first = run_job(models(server.url, "aababbc"), journal, settings(1))
        again = run_job(models(server.url, "aababbc"), journal, settings(1))
        later = run_job(models(server.url, "aababbca") + models(server.url, "d"), journal, settings(1))
    assert [e.asked.prompt.index for e in first.events if e.kind == "origin_changed"] == [2, 6]
    assert "origin_changed" not in again.kinds()
    changes = [event for event in later.events if event.kind == "origin_changed"]
    assert [event.reading.origin.model for event in changes if event.reading] == ["d"]
    assert [origin.model for origin in later.result.origins] == ["a", "b", "c", "d"]
    assert Counter(later.result.origins.values()) == Counter([4, 3, 1, 1])


def test_the_key_is_nowhere(journal: Journal, path: Path) -> None:
    with FakeServer(by_text({"7": "unauthorised"})) as server:
        ran = run_job(many(server.url, 8), journal, settings(1))
    assert ran.result.ended == "error"
    assert KEY not in f"{ran.result!r} {ran.events!r} {ran.result.error}"
    assert KEY not in repr(settings())
    attempts = [row for one in many(server.url, 8) for row in journal.attempts(one.request.hash)]
    stored = b"".join(journal.stored(row.id).body for row in attempts)
    assert KEY.encode() not in path.read_bytes() + stored
    assert b"[removed]" in stored


def test_a_record_that_holds_the_key_is_named_before_anything_is_sent(journal: Journal) -> None:
    with FakeServer() as server:
        items = many(server.url, 3)
        body = {"messages": [{"role": "user", "content": f"my key is {KEY}"}]}
        items[1] = replace(items[1], request=replace(items[1].request, body=body))
        with pytest.raises(DataError, match=r"^prompts\.jsonl:2: the record holds the key") as refused:
            run_job(items, journal)
    assert KEY not in str(refused.value)
    assert server.seen.total() == 0


def test_nothing_to_ask(journal: Journal) -> None:
    with FakeServer() as server:
        one = many(server.url, 1)
        run_job(one, journal)
        ran = run_job(one, journal)
    assert (ran.result.ended, ran.result.asked, ran.result.reused) == ("done", 1, 1)
