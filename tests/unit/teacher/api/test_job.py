"""The job of an API teacher against the fake server: what was sent, what the journal holds, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import journals
import pytest
from teach_jobs import (
    ANSWER,
    COST_MICRO,
    KEY,
    POLICY,
    UNKNOWN,
    WORST_MICRO,
    RawServer,
    asked,
    many,
    read,
    rows,
    run_job,
    settings,
)

from kdfast.errors import TeacherError
from kdfast.teacher.api.fake_replies import BEHAVIOURS, http_response
from kdfast.teacher.api.fake_server import FakeServer, by_text, by_times_seen
from kdfast.teacher.api.journal import Answer, Journal, Verdict
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import Reading


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path, secrets=[KEY]) as opened:
        yield opened


@dataclass(frozen=True)
class Expected:
    """What one request leads to, if the server plays a behaviour for its first sending.

    Attributes:
        attempts: (state, status, final) of what was sent.
        verdict: of the final answer; None = there is none.
        ended: why the job ended.
        failures: the reason for which it was given up; "" = it was not.
        cost_micro: of all attempts.
    """

    attempts: list[tuple[str, int | None, bool]]
    verdict: tuple[str, str] | None = ("accepted", "")
    ended: str = "done"
    failures: str = ""
    cost_micro: int = COST_MICRO


def retried(status: int) -> Expected:
    return Expected([("answered", status, False), ANSWER])


def refused(reason: str, status: int = 400) -> Expected:
    cost = WORST_MICRO if status == 200 else 0
    return Expected([("answered", status, True)], ("failed", reason), failures=reason, cost_micro=cost)


def stopped(status: int) -> Expected:
    return Expected([("answered", status, False)], None, "error", cost_micro=0)


TWICE = Expected([UNKNOWN, ANSWER], cost_micro=WORST_MICRO + COST_MICRO)
TABLE = {
    "ok": Expected([ANSWER]),
    "gzip": Expected([ANSWER]),
    "reset_after_body": Expected([ANSWER]),
    "slow_drip": Expected([ANSWER]),
    "rate_limit": retried(429),
    "rate_limit_seconds": retried(429),
    "rate_limit_date": retried(429),
    "rate_limit_ms": retried(429),
    "rate_limit_reset": retried(429),
    "quota": stopped(429),
    "bad_request": refused("refused_request"),
    "forbidden": stopped(403),
    "unauthorised": stopped(401),
    "unknown_model": stopped(404),
    "content_filter": refused("content_filter"),
    "context_length": refused("context_length"),
    "refused_schema": refused("refused_schema"),
    "timeout": retried(408),
    "conflict": retried(409),
    "error_500": retried(500),
    "error_502": retried(502),
    "error_503": retried(503),
    "error_504": retried(504),
    "error_529": retried(529),
    "html_502": retried(502),
    "hang": Expected([UNKNOWN], None, failures="read_timeout", cost_micro=WORST_MICRO),
    "reset": TWICE,
    "reset_before_body": TWICE,
    "close": TWICE,
    "truncated_body": TWICE,
    "cut_chunks": TWICE,
    "truncated_json": refused("invalid_json", 200),
    "short_length": refused("invalid_json", 200),
    "bad_json": refused("invalid_json", 200),
    "error_in_200": refused("error_in_answer", 200),
    "no_choices": refused("no_choices", 200),
    "empty_choices": refused("empty_choices", 200),
    "redirect": Expected([("answered", 307, False)], None, failures="redirect", cost_micro=0),
}


@pytest.mark.parametrize(
    "behaviour",
    [pytest.param(one, marks=pytest.mark.slow) if one == "reset_before_body" else one for one in BEHAVIOURS],
)
def test_one_request(journal: Journal, behaviour: str) -> None:
    expected = TABLE[behaviour]
    hangs = behaviour == "hang"  # its answer would have to come in time, too: one try
    limits = settings(policy=replace(POLICY, max_unknown_retries=0)) if hangs else settings()
    with FakeServer(by_times_seen([behaviour]), wait_s=0.01, drip_s=0.0001) as server:
        one = asked(server.url, 0)
        ran = run_job([one], journal, limits, timeout_s=0.5 if hangs else 60.0)
    assert rows(journal, one) == expected.attempts
    assert server.seen.total() == len(expected.attempts) == ran.result.sent
    answer = journal.answered(one.request.hash)
    found = answer.verdict if answer is not None else None
    assert found == (None if expected.verdict is None else Verdict(*expected.verdict))
    assert ran.result.verdicts == ({} if found is None else {found: 1})
    assert (ran.result.ended, ran.result.failures) == (
        expected.ended,
        {expected.failures: 1} if expected.failures else {},
    )
    assert journal.money().spent_micro == expected.cost_micro
    assert journal.stats().in_flight == 0
    assert (ran.result.error is not None) == (expected.ended == "error")
    assert ran.result.left == (expected.ended == "error")
    assert ran.result.unknown == expected.attempts.count(UNKNOWN)


def test_the_table_has_every_behaviour() -> None:
    assert set(TABLE) == set(BEHAVIOURS)


def test_a_second_job_sends_nothing_and_writes_nothing(journal: Journal, path: Path) -> None:
    with FakeServer(by_text({"3": "content_filter", "5": "bad_json"})) as server:
        first = run_job(many(server.url, 8), journal)
        before = path.read_bytes()
        second = run_job(many(server.url, 8), journal)
        assert server.seen.total() == 8
    assert path.read_bytes() == before
    assert (first.result.answered, first.result.failed) == (6, 2)
    assert (second.result.reused, second.result.sent, second.kinds()) == (8, 0, ["reused"] * 8)
    assert second.result.verdicts == first.result.verdicts
    assert second.result.origins == first.result.origins


def test_answers_that_are_there_are_read_by_this_config(journal: Journal) -> None:
    def strict(one: Asked, answer: Answer) -> Reading:
        return replace(read(one, answer), verdict=Verdict("filtered", "strict"), cost_micro=7)

    with FakeServer() as server:
        items = many(server.url, 70)
        run_job(items, journal)
        again = run_job(items, journal, reader=strict)
    assert again.result.verdicts == {Verdict("filtered", "strict"): 70}
    assert journal.stats().verdicts == {("filtered", "strict"): 70}
    assert journal.money().spent_micro == COST_MICRO * 70  # at the price of the job that asked
    assert server.seen.total() == 70


def test_a_smaller_place_is_kept(journal: Journal) -> None:
    with FakeServer() as server:
        run_job([asked(server.url, 0, order=9)], journal)
        run_job([asked(server.url, 0, order=2)], journal)
        run_job([asked(server.url, 0, order=5)], journal)
    assert [answer.order for answer in journal.all_answers()] == [2]


def test_what_fails_too_often_is_asked_again_by_a_later_job(journal: Journal) -> None:
    limits = settings(policy=replace(POLICY, max_retries=2))
    with FakeServer(by_times_seen(["error_500"] * 4)) as server:
        one = asked(server.url, 0)
        first = run_job([one], journal, limits)
        assert (server.seen.total(), first.kinds()) == (3, ["retried", "retried", "failed"])
        second = run_job([one], journal, limits)
    assert (second.kinds(), second.result.retried) == (["retried", "answered"], 1)
    assert rows(journal, one) == [("answered", 500, False)] * 4 + [ANSWER]


def test_outcomes_that_are_unknown_too_often_are_given_up_for_ever(journal: Journal) -> None:
    with FakeServer(lambda _: "close") as server:
        one = asked(server.url, 0)
        first = run_job([one], journal)
        second = run_job([one], journal)
    assert first.kinds() == ["unknown", "retried", "unknown", "failed"]
    assert (first.result.failures, first.result.unknown) == ({"reset": 1}, 2)
    assert (second.result.failures, second.result.unknown) == ({"outcome_unknown": 1}, 0)
    assert (server.seen.total(), rows(journal, one)) == (2, [UNKNOWN] * 2)
    assert journal.money().spent_micro == 2 * WORST_MICRO


def test_no_connection_costs_nothing(journal: Journal) -> None:
    with FakeServer() as server:
        one = asked(server.url, 0)
    ran = run_job([one], journal, settings(policy=replace(POLICY, max_retries=2)))
    assert (ran.result.failures, ran.result.sent, ran.result.retried) == ({"connect": 1}, 0, 2)
    assert [row.state for row in journal.attempts(one.request.hash)] == ["not_sent"] * 3
    assert journal.money().spent_micro == 0


def test_an_errors_body_that_is_cut_is_stored(journal: Journal) -> None:
    whole = http_response(400, b'{"error": {"message": "content policy"}}')
    with RawServer([whole[:-3]]) as server:
        one = asked(server.url, 0)
        run_job([one], journal)
    answer = journal.answered(one.request.hash)
    assert answer is not None
    assert (answer.status, answer.body, answer.cost_micro) == (
        400,
        b'{"error": {"message": "content policy',
        0,
    )


NO_MODEL = b'{"error": {"message": "Model Not Exist", "code": "invalid_request_error"}}'
NO_MONEY = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'


@pytest.mark.parametrize(("status", "body"), [(400, NO_MODEL), (200, NO_MONEY)])
def test_a_final_status_whose_words_stop_the_job_is_withdrawn(
    journal: Journal, status: int, body: bytes
) -> None:
    with RawServer([http_response(status, body)]) as server:
        one = asked(server.url, 0)
        ran = run_job([one], journal)
    assert (ran.result.ended, ran.result.left, ran.result.verdicts) == ("error", 1, {})
    assert isinstance(ran.result.error, TeacherError)
    assert ran.result.error.status == status
    assert rows(journal, one) == [("answered", status, False)]
    assert journal.answered(one.request.hash) is None


FLAGGED = b'{"error": {"message": "Your input was flagged", "code": "content_filter"}}'
TOO_LONG = b'{"error": {"message": "This model\'s maximum context length is 8192 tokens"}}'


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [(403, FLAGGED, "content_filter"), (500, TOO_LONG, "context_length"), (500, FLAGGED, "content_filter")],
)
def test_a_record_that_is_refused_with_any_status_is_never_asked_again(
    journal: Journal, status: int, body: bytes, reason: str
) -> None:
    with RawServer([http_response(status, body)]) as server:
        one = asked(server.url, 0)
        first = run_job([one], journal)
        assert rows(journal, one) == [("answered", status, True)]
        second = run_job([one], journal)
    verdict = Verdict("failed", reason)
    assert (first.result.failures, first.result.verdicts) == ({reason: 1}, {verdict: 1})
    assert (second.result.sent, second.result.reused, second.result.verdicts) == (0, 1, {verdict: 1})
    answer = journal.answered(one.request.hash)
    assert answer is not None
    assert (answer.verdict, answer.cost_micro) == (verdict, 0)


def test_a_large_answer_is_read_as_a_small_one_is(journal: Journal) -> None:
    choice = {"message": {"content": "echo: question 0"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "padding": "x" * 200_000}).encode()
    with RawServer([http_response(200, body)]) as server:
        one = asked(server.url, 0)
        ran = run_job([one], journal)
    assert (ran.kinds(), rows(journal, one)) == (["answered"], [ANSWER])


def test_a_kill_before_the_withdrawal_does_not_keep_a_refusal_for_ever(journal: Journal) -> None:
    with FakeServer() as server:
        items = many(server.url, 3)
        attempt = journals.begun(journal, items[1].request)
        journal.finish_attempt(attempt, journals.response(NO_MODEL.decode(), 400), final=True, cost_micro=0)
        ran = run_job(items, journal)
    assert (ran.result.answered, ran.result.reused) == (3, 0)
    assert rows(journal, items[1]) == [("answered", 400, False), ANSWER]


def test_an_answer_that_nobody_read_before_a_kill_is_read(journal: Journal) -> None:
    with FakeServer() as server:
        one = asked(server.url, 0)
        body = json.dumps(
            {"choices": [{"message": {"content": "echo: question 0"}, "finish_reason": "stop"}]}
        )
        journal.finish_attempt(journals.begun(journal, one.request), journals.response(body), final=True)
        ran = run_job([one], journal)
    assert (ran.kinds(), server.seen.total()) == (["reused"], 0)
    stored = journal.answered(one.request.hash)
    assert stored is not None
    assert (stored.verdict, stored.cost_micro) == (Verdict("accepted"), COST_MICRO)
    assert stored.usage == {
        "input_tokens": 10,
        "output_tokens": 1,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "counted": True,
    }
