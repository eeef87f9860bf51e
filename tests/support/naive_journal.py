"""The journal as plain lists: slow, obvious, and forgotten at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

LEASE_MS = 100_000


@dataclass
class NaiveAttempt:
    request: int
    number: int
    owner: str
    worst: int
    until_ms: int
    state: str = "in_flight"
    final: bool = False
    expired: bool = False
    cost: int | None = None
    body: bytes | None = None
    verdict: tuple[str, str] | None = None

    def charge(self) -> int:
        if self.state == "not_sent":
            return 0
        return self.cost if self.state == "answered" and self.cost is not None else self.worst


@dataclass
class NaiveJournal:
    attempts: list[NaiveAttempt] = field(default_factory=list)
    answers: dict[int, NaiveAttempt] = field(default_factory=dict)

    def expire(self, now_ms: int, request: int | None = None) -> None:
        for one in self.attempts:
            if one.state == "in_flight" and one.until_ms <= now_ms and request in (None, one.request):
                one.state, one.expired = "unknown", True

    def begin(
        self, owner: str, request: int, worst: int, budget: int | None, max_unknown: int | None, now_ms: int
    ) -> NaiveAttempt | str:
        """The attempt, or what stands in its way."""
        self.expire(now_ms, request)
        mine = [one for one in self.attempts if one.request == request]
        if request in self.answers:
            return "answered"
        if any(one.state == "in_flight" for one in mine):
            return "busy"
        if max_unknown is not None and sum(one.state == "unknown" for one in mine) > max_unknown:
            return "given up"
        if budget is not None and self.charged() + worst > budget:
            return "budget"
        made = NaiveAttempt(request, len(mine) + 1, owner, worst, now_ms + LEASE_MS)
        self.attempts.append(made)
        return made

    def close(self, owner: str) -> None:
        for one in self.attempts:
            if one.state == "in_flight" and one.owner == owner:
                one.state, one.expired = "unknown", True

    def charged(self) -> int:
        return sum(one.charge() for one in self.attempts)

    def in_flight(self) -> int:
        return sum(one.worst for one in self.attempts if one.state == "in_flight")

    def can_end(self, attempt: NaiveAttempt) -> bool:
        return attempt.state == "in_flight" or (attempt.state == "unknown" and attempt.expired)

    def finish(self, attempt: NaiveAttempt, body: bytes, final: bool, cost: int | None) -> None:
        attempt.state, attempt.body, attempt.final, attempt.cost = "answered", body, final, cost
        if final:
            self.answers.setdefault(attempt.request, attempt)

    def set_cost(self, attempt: NaiveAttempt, cost: int) -> None:
        if attempt.cost is None:
            attempt.cost = cost

    def make_final(self, attempt: NaiveAttempt) -> None:
        attempt.final = True
        self.answers.setdefault(attempt.request, attempt)

    def withdraw(self, attempt: NaiveAttempt) -> None:
        attempt.final = False
        if self.answers.get(attempt.request) is attempt:
            del self.answers[attempt.request]
            for one in self.attempts:
                if one.request == attempt.request and one.final:
                    self.answers.setdefault(one.request, one)

    def count(self, state: str) -> int:
        return sum(one.state == state for one in self.attempts)
