"""What is done about every outcome that a server or a network can give."""

from __future__ import annotations

import json
from random import Random
from typing import get_args

import pytest

from kdfast.teacher.api.retry import (
    RETRIED,
    Decision,
    FailuresInARow,
    Outcome,
    RetryPolicy,
    TransportFailure,
    Tries,
    full_jitter_s,
    judge_outcome,
    stop_error,
)

POLICY = RetryPolicy()
ANSWER = b'{"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}'
KEY = "kd-secret-0123456789"


def judge(outcome: Outcome, tries: Tries = Tries(), policy: RetryPolicy = POLICY) -> Decision:  # noqa: B008
    return judge_outcome(outcome, tries, policy, now=0.0, rng=Random(0), secrets=[KEY])


def error(status: int, message: str = "no", **fields: object) -> Outcome:
    return Outcome(status=status, body=json.dumps({"error": {"message": message, **fields}}).encode())


def test_an_answer_is_accepted() -> None:
    assert judge(Outcome(status=200, body=ANSWER)) == Decision(action="accept", reason="ok")


def test_an_answer_that_uses_up_a_limit_closes_the_gate() -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}
    assert judge(Outcome(status=200, body=ANSWER, headers=headers)).gate_s == 1.0


@pytest.mark.parametrize("status", sorted(RETRIED))
def test_retried_statuses(status: int) -> None:
    decision = judge(error(status, "try later"))
    assert (decision.action, decision.words, decision.unknown) == ("retry", "try later", False)
    assert 0 <= decision.wait_s <= POLICY.backoff_s
    assert decision.gate_s is None
    assert judge(error(status), Tries(failed=POLICY.max_retries)).action == "give_up"
    assert judge(error(status), Tries(failed=POLICY.max_retries - 1, unknown=9)).action == "retry"


def test_retry_after_closes_the_gate_and_spreads_the_requests() -> None:
    outcome = Outcome(status=503, headers={"Retry-After": "10"})
    decision = judge(outcome)
    assert decision.gate_s == 10.0
    assert 10.0 <= decision.wait_s <= 11.0
    last = judge(outcome, Tries(failed=POLICY.max_retries))
    assert (last.action, last.gate_s) == ("give_up", 10.0)


def test_a_wait_of_zero_is_no_reason_to_hurry() -> None:
    waits = {judge(Outcome(status=429, headers={"Retry-After": "0"}), Tries(failed=5)).wait_s}
    assert max(waits) > POLICY.backoff_s


def test_a_wait_of_a_day_stops_the_job() -> None:
    decision = judge(Outcome(status=429, headers={"Retry-After": "86400"}, body=b"Daily limit"))
    assert (decision.action, decision.reason) == ("stop", "wait_too_long")
    assert decision.words == "the server asks to wait for 86400 s: Daily limit"
    assert stop_error(decision, 429).retryable


def test_without_a_connection_the_request_was_not_received() -> None:
    decision = judge(Outcome(failure="connect", detail="connection refused"))
    assert (decision.action, decision.reason, decision.unknown) == ("retry", "connect", False)
    assert judge(Outcome(failure="connect"), Tries(failed=POLICY.max_retries)).action == "give_up"


@pytest.mark.parametrize("failure", [kind for kind in get_args(TransportFailure) if kind != "connect"])
@pytest.mark.parametrize("status", [None, 200])
def test_unknown_outcomes_are_retried_once(failure: TransportFailure, status: int | None) -> None:
    outcome = Outcome(status=status, body=ANSWER, failure=failure)
    first = judge(outcome)
    assert (first.action, first.reason, first.unknown) == ("retry", failure, True)
    second = judge(outcome, Tries().after(first))
    assert (second.action, second.unknown) == ("give_up", True)
    assert judge(outcome, policy=RetryPolicy(max_unknown_retries=0)).action == "give_up"
    assert judge(outcome, Tries(failed=5)).action == "retry"


def test_an_error_status_is_certain_even_if_its_body_is_cut() -> None:
    decision = judge(Outcome(status=503, body=b"over", failure="truncated"))
    assert (decision.action, decision.unknown) == ("retry", False)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (error(401, "Incorrect API key", code="invalid_api_key"), "not_authorised"),
        (error(403, "Country not supported"), "not_authorised"),
        (Outcome(status=401), "not_authorised"),
        (error(400, "API key not valid. Please pass a valid API key."), "not_authorised"),
        (error(404, "The model `x` does not exist or you do not have access to it."), "unknown_model"),
        (error(404, "gone", code="model_not_found"), "unknown_model"),
        (error(400, "gone", code="model_not_found"), "unknown_model"),
        (error(400, "x/y is not a valid model ID"), "unknown_model"),
        (error(400, "Model Not Exist"), "unknown_model"),
        (error(429, "You exceeded your quota", code="insufficient_quota"), "insufficient_quota"),
        (error(429, "You exceeded your quota", type="insufficient_quota", code=None), "insufficient_quota"),
        (error(402, "Insufficient Balance"), "insufficient_quota"),
        (error(400, "Your credit balance is too low to access the API"), "insufficient_quota"),
        (error(200, "pay", code="insufficient_quota"), "insufficient_quota"),
    ],
)
def test_what_stops_the_job(outcome: Outcome, reason: str) -> None:
    decision = judge(outcome)
    assert (decision.action, decision.reason) == ("stop", reason)
    assert decision.words


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (error(400, "filtered", code="content_filter"), "content_filter"),
        (error(400, "The response was filtered due to our content management policy"), "content_filter"),
        (error(403, "Your input was flagged: violence"), "content_filter"),
        (error(400, "too long", code="context_length_exceeded"), "context_length"),
        (error(400, "This model's maximum context length is 4096 tokens"), "context_length"),
        (error(400, "the request exceeds the available context size", code=400), "context_length"),
        (error(500, "the request exceeds the available context size", code=500), "context_length"),
        (Outcome(status=413, body=b"Payload Too Large"), "context_length"),
        (error(400, "bad", code="invalid_function_parameters"), "refused_schema"),
        (error(400, "bad", param="tools[0].function.parameters"), "refused_schema"),
        (error(400, "Invalid schema for response_format"), "refused_schema"),
        (error(400, "messages must not be empty"), "refused_request"),
        (error(400, "The model produced a tool call that was not found in tools"), "refused_request"),
        (error(422, "unprocessable"), "refused_request"),
        (Outcome(status=404, body=b'{"detail": "Not Found"}'), "not_found"),
        (error(405), "http_405"),
        (error(501), "http_501"),
    ],
)
def test_what_costs_its_record_only(outcome: Outcome, reason: str) -> None:
    decision = judge(outcome)
    assert (decision.action, decision.reason) == ("give_up", reason)
    assert not decision.unknown
    assert decision.words


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "Provider failed", "code": 502}}', "error_in_answer"),
        (b'{"error": {"message": "flagged"}}', "content_filter"),
        (b'{"error": {"message": "x"}, "choices": [{"message": {"content": "y"}}]}', "error_in_answer"),
        (b'{"error": {}, "detail": ""}', "no_choices"),
        (b'{"choices": [{"mess', "invalid_json"),
        (b"", "invalid_json"),
        (b"<html><title>Log in</title></html>", "invalid_json"),
        (b'{"choices": [NaN]}', "invalid_json"),
        (b"\xff{}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"id": "x"}', "no_choices"),
        (b'{"choices": null}', "no_choices"),
        (b'{"choices": [null]}', "no_choices"),
        (b"[]", "no_choices"),
        (b"null", "no_choices"),
        (b'{"choices": []}', "empty_choices"),
    ],
)
def test_a_status_of_200_is_no_success_by_itself(body: bytes, reason: str) -> None:
    decision = judge(Outcome(status=200, body=body))
    assert (decision.action, decision.reason) == ("give_up", reason)


def test_redirects_are_not_followed_and_said() -> None:
    location = f"http://example.com/v1?key={KEY}"
    decision = judge(Outcome(status=307, headers={"Location": location}))
    assert (decision.action, decision.reason) == ("give_up", "redirect")
    assert "http://example.com/v1?key=[secret]" in decision.words


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 429, 500])
def test_the_key_is_in_no_words(status: int) -> None:
    for body in (KEY.encode(), error(status, f"bad {KEY}", code=KEY).body, b'{"a": "' + KEY.encode()):
        decision = judge(Outcome(status=status, body=body, headers={"location": KEY}))
        assert KEY not in repr(decision)
        assert KEY not in str(stop_error(decision, status))
    assert KEY not in repr(judge(Outcome(failure="reset", detail=f"lost {KEY}")))


def test_back_off_is_full_jitter_seeded_and_bounded() -> None:
    def draws(seed: int, retry: int) -> list[float]:
        rng = Random(seed)
        return [full_jitter_s(retry, POLICY, rng) for _ in range(2000)]

    assert draws(1, 3) == draws(1, 3) != draws(2, 3)
    for retry, longest in [(0, 1.0), (3, 8.0), (6, 60.0), (10_000, 60.0)]:
        waits = draws(0, retry)
        assert 0 <= min(waits) < 0.01 * longest
        assert 0.99 * longest < max(waits) <= longest
        assert sum(waits) / len(waits) == pytest.approx(longest / 2, rel=0.05)


def test_failures_in_a_row_stop_the_job_retries_do_not_count() -> None:
    failures = FailuresInARow(limit=3)
    failed = judge(error(400, "bad"))
    retried = judge(error(429))
    for decision in (
        failed,
        failed,
        judge(Outcome(status=200, body=ANSWER)),
        failed,
        retried,
        failed,
        retried,
    ):
        assert failures.record(decision) is None
    stop = failures.record(failed)
    assert stop is not None
    assert (stop.action, stop.reason) == ("stop", "failures_in_a_row")
    assert stop.words == "3 requests in a row failed, the last one: bad"
    with pytest.raises(ValueError, match="limit"):
        FailuresInARow(limit=0)


def test_tries_count_what_happened() -> None:
    tries = Tries().after(judge(error(500))).after(judge(Outcome(failure="reset")))
    assert tries == Tries(failed=1, unknown=1)
    assert tries.after(judge(Outcome(status=200, body=ANSWER))) == tries


def test_an_outcome_has_a_status_or_a_failure() -> None:
    with pytest.raises(ValueError, match="status"):
        Outcome()


def test_the_error_that_ends_a_job_has_the_servers_words() -> None:
    stopped = stop_error(judge(error(401, "Incorrect API key", code="invalid_api_key")), 401)
    assert str(stopped) == "the teacher's server: Incorrect API key (HTTP status 401)"
    assert (stopped.status, stopped.retryable) == (401, False)
