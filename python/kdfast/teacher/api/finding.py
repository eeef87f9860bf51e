"""What a stored response is worth: whether it is final, how it is read, and what the journal notes about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from kdfast.teacher.api.job_report import JobSettings
from kdfast.teacher.api.journal import Answer, Journal, Verdict
from kdfast.teacher.api.journal.entries import ACCEPTED, MOST_MICRO
from kdfast.teacher.api.retry import Decision, Outcome, Tries, judge_outcome
from kdfast.teacher.api.usage import usage_json, usage_of_body
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import OF_DATASET, Reading

Read = Callable[[Asked, Answer], Reading]
"""Reads an answer; called in a thread of its own, for one answer at a time."""

_MAY_SUCCEED_LATER = frozenset({401, 402, 403, 404, 407, 408, 409, 429})
"""Because of the key, the money, the address, the model or the load, not because of the request."""


def is_final(status: int) -> bool:
    """Whether a response of this status is never asked for again. Its body says no more than that.

    Examples:
        >>> [status for status in (200, 307, 400, 401, 404, 413, 422, 429, 451, 500) if is_final(status)]
        [200, 400, 413, 422, 451]
    """
    return 200 <= status < 300 or (400 <= status < 500 and status not in _MAY_SUCCEED_LATER)


def is_charged(status: int) -> bool:
    """Whether a response of this status may cost something.

    Examples:
        >>> is_charged(200), is_charged(429)
        (True, False)
    """
    return 200 <= status < 300


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A final answer, judged and read.

    Attributes:
        asked: the request.
        answer: as it is stored.
        decision: `accept`, `give_up` or, if it should not be final, `stop`.
        reading: what became of it; None unless accepted.
        verdict: for the journal.
        cost_micro: in millionths of the currency; None = not known. What the journal has already stays.
        usage: its tokens, as JSON; None = not known.
    """

    asked: Asked
    answer: Answer
    decision: Decision
    reading: Reading | None
    verdict: Verdict
    cost_micro: int | None
    usage: dict[str, Any] | None


def judge_stored(answer: Answer, settings: JobSettings) -> Decision:
    """Judges a response as `judge_outcome` did when it came."""
    outcome = Outcome(status=answer.status, headers=answer.headers, body=answer.body)
    draws = Random(0)  # noqa: S311 - of a wait that nobody waits
    return judge_outcome(
        outcome, Tries(), settings.policy, now=time.time(), rng=draws, secrets=settings.secrets
    )


def find(asked: Asked, answer: Answer, decision: Decision, read: Read, settings: JobSettings) -> Finding:
    """Reads a final answer.

    Args:
        asked: the request.
        answer: as it is stored.
        decision: what was decided about it.
        read: reads an accepted one.
        settings: says what tokens cost, where the reading does not.
    """
    reading = read(asked, answer) if decision.action == "accept" else None
    usage: dict[str, Any] | None = None
    cost: int | None = None
    if reading is not None:
        usage, cost = usage_json(reading.usage, is_counted=reading.usage_counted), reading.cost_micro
    if cost is None and is_charged(answer.status) and (said := usage_of_body(answer.body)) is not None:
        usage = usage_json(said, is_counted=False)
        cost = None if settings.cost_of is None else settings.cost_of(said)
    if answer.cost_micro is not None:
        cost = answer.cost_micro
    elif cost is not None and cost > MOST_MICRO:
        cost = None  # nobody pays that: its worst case stands
    return Finding(
        asked=asked,
        answer=answer,
        decision=decision,
        reading=reading,
        verdict=Verdict("failed", decision.reason) if reading is None else reading.verdict,
        cost_micro=cost,
        usage=usage,
    )


def note(journal: Journal, findings: Sequence[Finding]) -> None:
    """Stores new verdicts, and costs that are not in the journal yet, in one commit.

    A cost is set once, at the price of the job that asked.

    Args:
        journal: the journal.
        findings: of final answers that stay final.
    """
    changed = [one for one in findings if _has_new_cost(one) or _has_new_verdict(one)]
    if not changed:
        return
    with journal.together():
        for one in changed:
            if one.cost_micro is not None and _has_new_cost(one):
                journal.set_cost(one.answer, one.cost_micro, one.usage)
            if _has_new_verdict(one):
                journal.set_verdict(one.answer, one.verdict)


def _has_new_cost(found: Finding) -> bool:
    return found.answer.cost_micro is None and found.cost_micro is not None


def _has_new_verdict(found: Finding) -> bool:
    if found.answer.verdict in OF_DATASET and found.verdict.kind == ACCEPTED:
        return False  # whoever wrote the dataset had the last word
    return found.answer.verdict != found.verdict
