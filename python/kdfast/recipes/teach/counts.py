"""What happened in a job of a teacher so far, counted from its events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kdfast.teacher.api.job_report import Event

DONE_KINDS = ("answered", "reused", "failed")
"""The kinds of event with which a request is done."""


@dataclass
class TeachCounts:
    """What happened so far. Every request that is done was answered or failed.

    Attributes:
        answered: requests with an answer, filtered ones included.
        reused: requests, answered or failed, whose answer was in the journal.
        filtered: reason -> answers that do not go into the dataset.
        failed: reason -> requests without an answer.
        retried: how many times a request was to be sent again.
        unknown: how many times the outcome was unknown; each counts as spent with its worst case.
        output_tokens: of the answers that came now, reasoning included.
        reasoning_tokens: of reasoning that was taken out, as far as known.
        usage_counted: answers whose tokens kdfast counted, as the server did not say them.
        spent_micro: what the requests of now cost, as far as known.
    """

    answered: int = 0
    reused: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    unknown: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    usage_counted: int = 0
    spent_micro: int = 0

    @property
    def done(self) -> int:
        """Requests that are answered or failed."""
        return self.answered + self.failed.total()

    @property
    def new(self) -> int:
        """Those of them whose outcome came now."""
        return self.done - self.reused

    def add(self, event: Event) -> None:
        """Counts one event."""
        self.retried += event.kind == "retried"
        if event.kind == "unknown":
            self.unknown += 1
            self.spent_micro += event.asked.worst_micro
        if event.kind not in DONE_KINDS:
            return
        self.reused += event.kind == "reused"
        reason = failure_of(event)
        if reason:
            self.failed[reason] += 1
        else:
            self.answered += 1
        reading = event.reading
        if reading is None:
            return
        if reading.verdict.kind == "filtered":
            self.filtered[reading.verdict.reason or "no reason is given"] += 1
        self.reasoning_tokens += reading.reasoning_tokens
        self.usage_counted += reading.usage_counted
        if event.kind != "reused":
            self.output_tokens += reading.usage.output_tokens
            self.spent_micro += event.asked.worst_micro if reading.cost_micro is None else reading.cost_micro


def failure_of(event: Event) -> str:
    """Why a request that is done got no answer, in a fixed word; "" if it got one.

    Args:
        event: of kind `answered`, `reused` or `failed`.
    """
    if event.reading is not None:
        verdict = event.reading.verdict
        return (verdict.reason or "no reason is given") if verdict.kind == "failed" else ""
    return "no reason is given" if event.decision is None else event.decision.reason
