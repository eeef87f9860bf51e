"""A thousand records, a fault in every fifth request: nothing is lost, nothing is paid twice, whatever the order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import journals
import pytest
from teach_jobs import COST_MICRO, KEY, WORST_MICRO, many, run_job, settings

from kdfast.teacher.api.fake_replies import BEHAVIOURS
from kdfast.teacher.api.fake_server import FakeServer, by_seed
from kdfast.teacher.api.job_report import JobResult
from kdfast.teacher.api.journal import AttemptRow, Journal, Stats

RECORDS = 1000
STOPS = {"quota", "unauthorised", "forbidden", "unknown_model"}
# After "hang" a time-out must end: how many answers are as slow would depend on the machine. See test_job.
FAULTS = sorted(set(BEHAVIOURS) - STOPS - {"hang"})

pytestmark = pytest.mark.slow


@dataclass
class Ran:
    """What a job on a new journal led to.

    Attributes:
        result: the job's.
        again: of a second job on the same journal.
        stats: the journal's, after the first job.
        attempts: text -> the attempts at its request, after the first job.
        answers: (text, body, cost, verdict) of each final answer, sorted.
        texts: text -> how often the server saw it in the first job.
        seen: how often the server saw each different request in the first job.
        texts_again: as `texts`, of the second job alone.
    """

    result: JobResult
    again: JobResult
    stats: Stats
    attempts: dict[str, list[AttemptRow]]
    answers: list[tuple[str, bytes, int | None, str]]
    texts: Counter[str]
    seen: Counter[str]
    texts_again: Counter[str]


def ran(
    seed: int, records: int = RECORDS, *, at_once: int = 8, latency_s: float = 0.0, backwards: bool = False
) -> Ran:
    server = FakeServer(by_seed(seed, 0.2, FAULTS), wait_s=0.01, latency_s=latency_s, drip_s=0.0001)
    with journals.quick_folder() as folder, server, Journal(folder / "answers.db", secrets=[KEY]) as journal:
        items = many(server.url, records)
        texts = {one.request.hash: str(one.prompt.prompt) for one in items}
        result = run_job(items[::-1] if backwards else items, journal, settings(at_once)).result
        stats, seen, texts_seen = journal.stats(), Counter(server.seen), Counter(server.texts)
        attempts = {text: journal.attempts(one) for one, text in texts.items()}
        answers = sorted(
            (texts[one.hash], one.body, one.cost_micro, repr(one.verdict)) for one in journal.all_answers()
        )
        again = run_job(items, journal, settings(at_once)).result
        return Ran(result, again, stats, attempts, answers, texts_seen, seen, server.texts - texts_seen)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_thousand_records(seed: int) -> None:
    one = ran(seed)
    stats, result = one.stats, one.result

    # Every response and every unknown outcome is in the journal, and nothing else was sent.
    assert one.seen.total() == stats.answered + stats.not_final + stats.unknown == result.sent
    # Requests seen = different ones + refusals and unknown outcomes after which they were sent again.
    assert len(one.seen) == stats.requests == RECORDS
    assert one.seen.total() == RECORDS + result.retried
    assert result.unknown == stats.unknown
    assert (stats.in_flight, stats.late, stats.not_sent, stats.unread) == (0, 0, 0, 0)
    for text, attempts in one.attempts.items():
        assert len(attempts) == one.texts[text]
        assert not any(row.final for row in attempts[:-1])  # nothing answered was asked again
    assert (result.ended, result.left, result.asked) == ("done", 0, RECORDS)
    assert min(stats.not_final, stats.unknown, result.failed) > 10
    assert sum(result.verdicts.values()) == stats.answered == len(one.answers)

    # A response costs what it costs, an unknown outcome its worst case, a refusal nothing.
    unread = sum(1 for _, _, cost, _ in one.answers if cost is None)
    refused = sum(1 for _, _, cost, _ in one.answers if cost == 0)
    paid = stats.answered - unread - refused
    assert stats.uncosted == unread
    assert stats.money.spent_micro == COST_MICRO * paid + WORST_MICRO * (unread + stats.unknown)

    # A second job sends only what has no final answer, and no more than is allowed after unknown outcomes.
    assert (one.again.reused, one.again.ended) == (stats.answered, "done")
    without = {text for text, attempts in one.attempts.items() if not attempts[-1].final}
    assert set(one.texts_again) <= without
    assert one.again.sent == one.texts_again.total()


def test_answers_do_not_depend_on_the_order() -> None:
    one = ran(4, 120)
    other = ran(4, 120, at_once=24, latency_s=0.004, backwards=True)
    assert one.answers == other.answers
    assert one.texts == other.texts
    assert one.result == other.result
    assert one.again == other.again
