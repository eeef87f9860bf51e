"""The journal does what the naive twin does, over random histories of two processes and restarts."""

from __future__ import annotations

import contextlib

import journals
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from journals import Clock
from naive_journal import NaiveAttempt, NaiveJournal

from kdfast.errors import BudgetReached
from kdfast.teacher.api.journal import (
    Answer,
    Attempt,
    Busy,
    GivenUp,
    Journal,
    Money,
    Response,
    Verdict,
    verify,
)

OWNERS = st.sampled_from(["one", "two"])
REQUESTS = st.integers(0, 3)
AMOUNTS = st.integers(0, 50)
OUTCOMES = {"answered": Answer, "busy": Busy, "given up": GivenUp}
VERDICTS = st.sampled_from([Verdict("accepted"), Verdict("filtered", "cut"), Verdict("error", "no choices")])


class JournalTwin(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.folder = self.stack.enter_context(journals.quick_folder())
        self.clock = Clock()
        self.twin = NaiveJournal()
        self.begun: list[tuple[Attempt, NaiveAttempt]] = []
        self.journals = {owner: self.open(owner) for owner in ("one", "two")}

    def open(self, owner: str) -> Journal:
        return Journal(self.folder / "answers.db", leases=journals.leases(owner, self.clock))

    def now_ms(self) -> int:
        return round(self.clock.now * 1000)

    def teardown(self) -> None:
        assert verify(self.journals["one"]).ok
        for journal in self.journals.values():
            journal.close()
        self.stack.close()

    @rule(
        owner=OWNERS,
        request=REQUESTS,
        worst=AMOUNTS,
        budget=st.none() | st.integers(0, 300),
        most=st.none() | st.integers(0, 2),
    )
    def begin(self, owner: str, request: int, worst: int, budget: int | None, most: int | None) -> None:
        expected = self.twin.begin(owner, request, worst, budget, most, self.now_ms())
        journal, asked = self.journals[owner], journals.request(request)
        if expected == "budget":
            with pytest.raises(BudgetReached):
                journal.begin_attempt(asked, worst, budget_micro=budget, max_unknown_retries=most)
            self.twin.expire(self.now_ms(), request)
            return
        made = journal.begin_attempt(asked, worst, budget_micro=budget, max_unknown_retries=most)
        if isinstance(expected, NaiveAttempt):
            assert isinstance(made, Attempt)
            assert (made.number, made.until_ms) == (expected.number, expected.until_ms)
            self.begun.append((made, expected))
        else:
            assert isinstance(made, OUTCOMES[expected])

    @precondition(lambda self: self.begun)
    @rule(
        data=st.data(),
        how=st.sampled_from(["final", "not final", "unknown", "not_sent"]),
        cost=st.none() | AMOUNTS,
    )
    def end(self, data: st.DataObject, how: str, cost: int | None) -> None:
        attempt, naive = data.draw(st.sampled_from(self.begun))
        journal = self.journals[naive.owner]
        body = f"{how} {attempt.id}".encode()
        allowed = (
            contextlib.nullcontext() if self.twin.can_end(naive) else pytest.raises(ValueError, match="ended")
        )
        with allowed:
            if how in ("final", "not final"):
                journal.finish_attempt(
                    attempt, Response(200, {}, body, 1), final=how == "final", cost_micro=cost
                )
            elif how == "unknown":
                journal.mark_unknown(attempt, "reset")
            else:
                journal.mark_not_sent(attempt, "refused")
        if not isinstance(allowed, contextlib.nullcontext):
            return
        if how in ("final", "not final"):
            self.twin.finish(naive, body, how == "final", cost)
        else:
            naive.state, naive.expired = how, False

    @precondition(lambda self: any(one.state == "answered" for _, one in self.begun))
    @rule(
        data=st.data(),
        verdict=VERDICTS,
        cost=AMOUNTS,
        what=st.sampled_from(["verdict", "cost", "make final", "withdraw"]),
    )
    def read(self, data: st.DataObject, verdict: Verdict, cost: int, what: str) -> None:
        stored = [(attempt, naive) for attempt, naive in self.begun if naive.state == "answered"]
        attempt, naive = data.draw(st.sampled_from(stored))
        journal = self.journals["two"]
        answer = journal.stored(attempt.id)
        if what == "verdict":
            naive.verdict = (verdict.kind, verdict.reason)
            journal.set_verdict(answer, verdict)
        elif what == "cost":
            self.twin.set_cost(naive, cost)
            assert journal.set_cost(answer, cost).cost_micro == naive.cost
        elif what == "make final":
            self.twin.make_final(naive)
            assert journal.make_final(answer).final
        elif naive.verdict == ("accepted", ""):
            with pytest.raises(ValueError, match="cannot be withdrawn"):
                journal.withdraw(answer, "x")
        else:
            self.twin.withdraw(naive)
            journal.withdraw(answer, "x")

    @rule(seconds=st.sampled_from([1.0, 60.0, journals.LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(owner=OWNERS)
    def restart(self, owner: str) -> None:
        self.journals[owner].close()
        self.twin.close(owner)
        self.journals[owner] = self.open(owner)
        self.twin.expire(self.now_ms())

    @invariant()
    def same(self) -> None:
        journal, twin = self.journals["one"], self.twin
        assert journal.money() == Money(twin.charged() - twin.in_flight(), twin.in_flight())
        stats = journal.stats()
        assert (stats.answered, stats.in_flight, stats.unknown, stats.not_sent) == (
            len(twin.answers), twin.count("in_flight"), twin.count("unknown"), twin.count("not_sent"),
        )  # fmt: skip
        assert stats.late == sum(one.state == "answered" and one.expired for one in twin.attempts)
        found = [
            (one.order, one.body, one.verdict and (one.verdict.kind, one.verdict.reason))
            for one in journal.all_answers()
        ]
        assert found == [(order, one.body, one.verdict) for order, one in sorted(twin.answers.items())]


@pytest.mark.slow
def test_the_twin_agrees() -> None:
    run_state_machine_as_test(
        JournalTwin, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
