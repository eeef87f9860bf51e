"""What to do with the outcome of a request: take it, try again, give up its record, or stop the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from kdfast.errors import TeacherError
from kdfast.files import parse_json
from kdfast.teacher.api.error_words import ServerError, error_in, one_line, read_server_error
from kdfast.teacher.api.refusals import Refusal, refusal_of
from kdfast.teacher.api.server_wait import exhausted_wait_s, requested_wait_s

TransportFailure = Literal["connect", "read_timeout", "reset", "truncated"]
"""Why there is no whole response.

`connect`: the request was certainly not received (no connection, no TLS, no free one in the pool).
`read_timeout`, `reset`, `truncated`: it may have been received, answered and charged.
"""

Action = Literal["accept", "retry", "give_up", "stop"]

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed later."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came back for a request.

    Attributes:
        status: the HTTP status; None if none arrived.
        headers: the response's headers.
        body: the body as it arrived, decompressed.
        failure: why the response is not whole; None if it is.
        detail: the transport's own words about the failure.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: TransportFailure | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if self.status is None and self.failure is None:
            raise ValueError("give a status or a failure")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The limits of retrying.

    Attributes:
        max_retries: tries after the first one that a request gets when it certainly failed.
        max_unknown_retries: tries after an outcome that is unknown. Each may be charged.
        backoff_s: the longest first wait; each further one is twice as long.
        max_backoff_s: no back-off is longer.
        longest_wait_s: if the server asks for a longer wait, the job stops.
    """

    max_retries: int = 8
    max_unknown_retries: int = 1
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    longest_wait_s: float = 3600.0


@dataclass(frozen=True)
class Tries:
    """How often a request was tried before the outcome that is judged.

    Attributes:
        failed: tries that certainly failed.
        unknown: tries whose outcome is unknown.
    """

    failed: int = 0
    unknown: int = 0

    def after(self, decision: Decision) -> Tries:
        """These tries and the one that was just judged."""
        if decision.unknown:
            return replace(self, unknown=self.unknown + 1)
        return self if decision.action == "accept" else replace(self, failed=self.failed + 1)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do with an outcome.

    Attributes:
        action: `accept`: the body is a chat completion or a completion, to be read; `retry`: send it again after
            `wait_s`; `give_up`: the outcome is stored and counted, and costs its record only; `stop`: no request of
            this job can succeed.
        reason: a fixed word such as `ok`, `rate_limited`, `content_filter`; the journal counts by it.
        words: the server's words in one line, without secrets; "" for an accepted answer.
        unknown: whether the request may have been answered and charged without our knowledge.
        wait_s: seconds until this request is sent again; 0 unless `action` is `retry`.
        gate_s: seconds for which nobody may send, as the server asked; None if it did not ask.
    """

    action: Action
    reason: str
    words: str = ""
    unknown: bool = False
    wait_s: float = 0.0
    gate_s: float | None = None


def judge_outcome(
    outcome: Outcome,
    tries: Tries,
    policy: RetryPolicy,
    *,
    now: float,
    rng: Random,
    secrets: Sequence[str] = (),
) -> Decision:
    """Decides what to do with an outcome.

    Args:
        outcome: what came back.
        tries: how often the same request was tried before.
        policy: the limits.
        now: the time, in seconds since 1970, for dates in headers.
        rng: draws the back-off.
        secrets: texts that must not appear in the words: the key's value.

    Example:
        >>> outcome = Outcome(status=429, headers={"Retry-After": "7"}, body=b"slow down")
        >>> decision = judge_outcome(outcome, Tries(), RetryPolicy(backoff_s=0), now=0.0, rng=Random(0))
        >>> decision.action, decision.reason, decision.words, decision.wait_s, decision.gate_s
        ('retry', 'rate_limited', 'slow down', 7.0, 7.0)
    """
    judge = _Judge(outcome, tries, policy, now, rng)
    if outcome.status is not None and not 200 <= outcome.status < 300:
        # An error's status is certain, even if its body is cut.
        return judge.error_status(outcome.status, read_server_error(outcome.body, secrets), secrets)
    if outcome.failure is not None:
        return judge.transport_failure(outcome.failure, one_line(outcome.detail, secrets))
    return judge.answer(secrets)


@dataclass(frozen=True)
class _Judge:
    outcome: Outcome
    tries: Tries
    policy: RetryPolicy
    now: float
    rng: Random

    def transport_failure(self, failure: TransportFailure, words: str) -> Decision:
        return self._retry(failure, words or failure, unknown=failure != "connect")

    def error_status(self, status: int, error: ServerError, secrets: Sequence[str]) -> Decision:
        words = error.words or f"HTTP status {status}, without a word"
        if 300 <= status < 400:
            location = next((v for k, v in self.outcome.headers.items() if k.lower() == "location"), "?")
            target = one_line(location, secrets)
            words = f"HTTP status {status}: redirects are not followed; set api.base_url to the address of {target}"
            return Decision(action="give_up", reason="redirect", words=words)
        refusal = refusal_of(status, error)
        if refusal is not None:
            return _refused(refusal, words)
        if status in RETRIED:
            return self._retry(
                _reason_of(status), words, asked_s=requested_wait_s(self.outcome.headers, self.now)
            )
        return Decision(action="give_up", reason=f"http_{status}", words=words)

    def answer(self, secrets: Sequence[str]) -> Decision:
        """Judges a whole response of status 200. It was charged: nothing here is sent again."""
        body = self.outcome.body
        try:
            document = parse_json(body)
        except ValueError as error:
            words = read_server_error(body, secrets).words
            return Decision(
                action="give_up", reason="invalid_json", words=one_line(f"{error}: {words}", secrets)
            )
        if error_in(document) is not None:
            said = read_server_error(body, secrets)
            refusal = refusal_of(200, said)
            words = said.words or "an error without a word, under status 200"
            return _refused(refusal or Refusal("error_in_answer", stops=False), words)
        choices = document.get("choices") if isinstance(document, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            words = read_server_error(body, secrets).words
            return Decision(action="give_up", reason="no_choices", words=words)
        if not choices:
            return Decision(action="give_up", reason="empty_choices", words="the list of choices is empty")
        return Decision(action="accept", reason="ok", gate_s=exhausted_wait_s(self.outcome.headers, self.now))

    def _retry(
        self, reason: str, words: str, *, asked_s: float | None = None, unknown: bool = False
    ) -> Decision:
        if asked_s is not None and asked_s > self.policy.longest_wait_s:
            words = one_line(f"the server asks to wait for {asked_s:.0f} s: {words}")
            return Decision(action="stop", reason="wait_too_long", words=words)
        limit = self.policy.max_unknown_retries if unknown else self.policy.max_retries
        used = self.tries.unknown if unknown else self.tries.failed
        if used >= limit:
            # The others must wait all the same.
            return Decision(action="give_up", reason=reason, words=words, unknown=unknown, gate_s=asked_s)
        if asked_s:
            # Not all at once: those who wait come back spread over the first back-off.
            wait_s = asked_s + self.rng.uniform(0.0, self.policy.backoff_s)
        else:
            wait_s = full_jitter_s(self.tries.failed + self.tries.unknown, self.policy, self.rng)
        return Decision(
            action="retry", reason=reason, words=words, unknown=unknown, wait_s=wait_s, gate_s=asked_s
        )


def full_jitter_s(retry: int, policy: RetryPolicy, rng: Random) -> float:
    """A random wait between 0 and the exponential back-off of a retry.

    Args:
        retry: 0 for the first retry.
        policy: `backoff_s` and `max_backoff_s`.
        rng: draws the wait.
    """
    longest = min(policy.max_backoff_s, policy.backoff_s * 2.0 ** min(retry, 64))
    return rng.uniform(0.0, longest)


class FailuresInARow:
    """Stops a job whose requests all fail.

    Attributes:
        limit: the job stops after this many requests in a row that were given up.
        count: how many were given up since the last answer.

    Example:
        >>> failures, failed = FailuresInARow(limit=2), Decision(action="give_up", reason="http_501", words="no")
        >>> failures.record(failed) is None
        True
        >>> failures.record(failed).words
        '2 requests in a row failed, the last one: no'
    """

    def __init__(self, limit: int = 20) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1: {limit}")
        self.limit = limit
        self.count = 0

    def record(self, decision: Decision) -> Decision | None:
        """Counts a decision; gives the decision to stop once too many requests in a row were given up.

        A retry is no failure yet: a burst of "too many requests" does not end a job.

        Args:
            decision: what was decided about a request.
        """
        if decision.action == "accept":
            self.count = 0
        elif decision.action == "give_up":
            self.count += 1
        if self.count < self.limit or decision.action != "give_up":
            return None
        words = one_line(f"{self.count} requests in a row failed, the last one: {decision.words}")
        return Decision(action="stop", reason="failures_in_a_row", words=words)


def stop_error(decision: Decision, status: int | None = None) -> TeacherError:
    """The error that ends a job.

    Args:
        decision: one that says `stop`.
        status: the HTTP status of the outcome, if there was one.
    """
    later = decision.reason in ("wait_too_long", "insufficient_quota", "failures_in_a_row")
    place = "" if status is None else f" (HTTP status {status})"
    return TeacherError(f"the teacher's server: {decision.words}{place}", status=status, retryable=later)


def _refused(refusal: Refusal, words: str) -> Decision:
    return Decision(action="stop" if refusal.stops else "give_up", reason=refusal.reason, words=words)


def _reason_of(status: int) -> str:
    return {408: "timeout", 409: "conflict", 429: "rate_limited", 503: "overloaded", 529: "overloaded"}.get(
        status, "server_error"
    )
