"""What a job of an API teacher is given, what it tells while it runs, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from kdfast.errors import TeacherError
from kdfast.teacher.api.journal import Verdict
from kdfast.teacher.api.pacing import Clock, ConcurrencyLimits, MonotonicClock
from kdfast.teacher.api.reply import Origin
from kdfast.teacher.api.retry import Decision, RetryPolicy
from kdfast.teacher.api.usage import Usage
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import Reading


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """The limits of a job.

    Attributes:
        budget_micro: what all attempts in the journal may cost, in millionths of the currency; None = no limit.
        policy: how often, and after which waits, a request is tried again.
        limits: how many requests may be in flight.
        max_failures_in_a_row: the job stops when so many requests in a row were given up.
        requests_per_minute: the server's limit; None = none.
        tokens_per_minute: the server's limit; None = none.
        answer_tokens: what an answer counts for against `tokens_per_minute`, beside the prompt's tokens.
        secrets: texts that must appear in no decision.
        cost_of: the cost of the tokens that a body states, in millionths. It is asked where no reading says a cost: of
            broken JSON, of an error under a good status. Without such tokens, and with None, the worst case stands.
        busy_poll_s: after how many seconds it is asked again about a request that another process sends.
        clock: the clock of all waits.
    """

    budget_micro: int | None = None
    policy: RetryPolicy = RetryPolicy()  # noqa: RUF009 (frozen)
    limits: ConcurrencyLimits = ConcurrencyLimits()  # noqa: RUF009 (frozen)
    max_failures_in_a_row: int = 20
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    answer_tokens: int = 0
    secrets: tuple[str, ...] = field(default=(), repr=False)
    cost_of: Callable[[Usage], int] | None = None
    busy_poll_s: float = 1.0
    clock: Clock = field(default_factory=MonotonicClock)


EventKind = Literal["reused", "answered", "failed", "retried", "unknown", "waiting", "origin_changed"]
"""What happened.

`reused`: a final answer was in the journal. `answered`: one came, and was read. `failed`: the request was given up.
`retried`: it will be sent again. `unknown`: it was sent, and its outcome is not known; `retried` or `failed` follows.
`waiting`: the server asked everybody to wait. `origin_changed`: another model, provider or set-up answered.
"""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a job, for the screen.

    Attributes:
        kind: what.
        asked: the request.
        reading: what became of the answer; None if there is none that can be read.
        decision: what was decided about the outcome; None if there was no outcome now.
    """

    kind: EventKind
    asked: Asked
    reading: Reading | None = None
    decision: Decision | None = None


EndedBy = Literal["done", "stopped", "budget", "error"]
"""`done`: every request was answered or given up. `stopped`: somebody asked to stop. `budget`: the money is spent.
`error`: no request of the job can succeed."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What came of a job. `asked` = `reused` + `answered` + `failed` + `left`.

    Attributes:
        asked: the requests that were to be answered.
        reused: those whose final answer was in the journal, also one that another process got meanwhile.
        answered: those to which an answer came.
        failed: those that were given up.
        left: those that were neither, because the job ended before.
        sent: how many times something was sent.
        retried: how many times a request was to be sent again.
        unknown: how many times the outcome was unknown.
        verdicts: verdict -> number of final answers, new and reused.
        failures: the reason, in a fixed word -> how many requests were given up for it, without reused ones.
        origins: who answered -> number of answers.
        ended: why it ended.
        error: the server's or the budget's words; None if it is done or was stopped.
    """

    asked: int
    reused: int
    answered: int
    failed: int
    left: int
    sent: int
    retried: int
    unknown: int
    verdicts: dict[Verdict, int]
    failures: dict[str, int]
    origins: dict[Origin, int]
    ended: EndedBy
    error: TeacherError | None = None


@dataclass
class Tally:
    """Counts what happens in a job, and tells it.

    Attributes:
        on_event: is told each event.
        counts: kind of event -> number.
        sent: how many times something was sent.
        verdicts: verdict -> number of final answers.
        failures: reason -> number of requests that were given up.
        origins: who answered -> number of answers.
    """

    on_event: Callable[[Event], None]
    counts: Counter[EventKind] = field(default_factory=Counter)
    sent: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    origins: Counter[Origin] = field(default_factory=Counter)

    def tell(
        self,
        kind: EventKind,
        asked: Asked,
        *,
        verdict: Verdict | None = None,
        reading: Reading | None = None,
        decision: Decision | None = None,
        is_old: bool = False,
    ) -> None:
        """Counts an event and tells it; also that an answer's origin is another one than all before.

        Args:
            kind: what happened.
            asked: the request.
            verdict: of a final answer.
            reading: of an answer that can be read.
            decision: about an outcome.
            is_old: whether the answer was there before the job; then a new origin is no change.
        """
        self.counts[kind] += 1
        if verdict is not None:
            self.verdicts[verdict] += 1
        if kind == "failed" and decision is not None:
            self.failures[decision.reason] += 1
        self.on_event(Event(kind=kind, asked=asked, reading=reading, decision=decision))
        if reading is not None:
            is_change = bool(self.origins) and reading.origin not in self.origins and not is_old
            self.origins[reading.origin] += 1
            if is_change:
                self.counts["origin_changed"] += 1
                self.on_event(Event(kind="origin_changed", asked=asked, reading=reading))

    def result(self, asked: int, ended: EndedBy, error: TeacherError | None) -> JobResult:
        """What came of the job; nothing in it depends on the order in which answers came."""
        reused, answered, failed = (self.counts[kind] for kind in ("reused", "answered", "failed"))
        return JobResult(
            asked=asked,
            reused=reused,
            answered=answered,
            failed=failed,
            left=asked - reused - answered - failed,
            sent=self.sent,
            retried=self.counts["retried"],
            unknown=self.counts["unknown"],
            verdicts=dict(sorted(self.verdicts.items(), key=repr)),
            failures=dict(sorted(self.failures.items())),
            origins=dict(sorted(self.origins.items(), key=repr)),
            ended=ended,
            error=error,
        )
