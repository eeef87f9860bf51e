"""The journal by value: what is sent, what is stored, what is read back."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
from journals import answered, begun, request, response

from kdfast.errors import BudgetReached, TeacherError
from kdfast.teacher.api.journal import (
    Answer,
    Attempt,
    GivenUp,
    Journal,
    Money,
    Request,
    Response,
    Stats,
    Verdict,
)

# One request


def test_an_answer_is_stored_as_it_came_and_never_requested_again(journal: Journal, path: Path) -> None:
    asked = request(3)
    attempt = begun(journal, asked, 500)
    assert attempt == Attempt(1, asked.hash, 1, 1_100_000)
    assert journal.money() == Money(0, 500)
    got = journal.finish_attempt(attempt, response("not even JSON\0"), final=True)
    assert got == Answer(
        id=1, hash=asked.hash, sample=0, order=3, number=1, final=True, status=200,
        headers={"content-type": "application/json"}, body=b"not even JSON\0",
        digest=hashlib.sha256(b"not even JSON\0").hexdigest(), latency_ms=7, usage=None, cost_micro=None, verdict=None,
    )  # fmt: skip
    assert journal.begin_attempt(asked, 500) == got
    journal.close()
    with Journal(path) as again:
        assert again.answered(asked.hash) == again.begin_attempt(asked, 500) == got
        assert again.request(asked.hash) == asked
        assert again.money() == Money(500, 0), "without a cost it counts with its worst case"


def test_only_headers_without_secrets_are_stored(journal: Journal, path: Path) -> None:
    headers = {
        "Retry-After": "2", "X-RateLimit-Remaining-Tokens": "5", "X-Request-Id": "sk-secret", "Set-Cookie": "chip",
        "Authorization": "Bearer chip", "X-Api-Key": "chip", "X-New": "chip",
    }  # fmt: skip
    got = journal.finish_attempt(
        begun(journal, request()), Response(429, headers, b"key sk-secret is wrong", 1), final=False
    )
    assert got.headers == {
        "retry-after": "2",
        "x-ratelimit-remaining-tokens": "5",
        "x-request-id": "[removed]",
    }
    assert got.body == b"key [removed] is wrong"
    journal.mark_unknown(begun(journal, request(1)), "sk-secret")
    journal.mark_not_sent(begun(journal, request(2)), "sk-secret")
    journal.set_verdict(got, Verdict("error", "sk-secret"))
    content = path.read_bytes()
    assert b"chip" not in content
    assert b"sk-secret" not in content
    with pytest.raises(ValueError, match="must not hold the key"):
        journal.begin_attempt(Request("http://localhost/?key=sk-secret", {}), 1)


def test_a_response_that_is_not_final_lets_the_request_be_sent_again(journal: Journal) -> None:
    asked = request()
    refused = journal.finish_attempt(
        begun(journal, asked), response("slow down", 429), final=False, cost_micro=0
    )
    assert journal.answered(asked.hash) is None
    assert journal.stored(refused.id).body == b"slow down"
    again = begun(journal, asked)
    assert again.number == 2
    got = journal.finish_attempt(again, response(), final=True, cost_micro=40, usage={"total_tokens": 4})
    assert (got.cost_micro, got.usage) == (40, {"total_tokens": 4})
    assert journal.answered(asked.hash) == got
    assert [(row.number, row.state, row.final, row.status) for row in journal.attempts(asked.hash)] == [
        (1, "answered", False, 429),
        (2, "answered", True, 200),
    ]


def test_an_unknown_outcome_counts_with_its_worst_case_and_is_retried_as_often_as_allowed(
    journal: Journal,
) -> None:
    asked = request()
    for number in (1, 2):
        attempt = begun(journal, asked, 100, max_unknown_retries=1)
        assert attempt.number == number
        journal.mark_unknown(attempt, "read timeout")
    assert journal.begin_attempt(asked, 100, max_unknown_retries=1) == GivenUp(asked.hash, 2)
    assert journal.money() == Money(200, 0)
    assert [row.reason for row in journal.attempts(asked.hash)] == ["read timeout"] * 2
    assert begun(journal, asked, 100, max_unknown_retries=2).number == 3


def test_what_was_not_sent_costs_nothing_and_is_no_unknown_outcome(journal: Journal) -> None:
    asked = request()
    journal.mark_not_sent(begun(journal, asked), "connection refused")
    assert journal.money() == Money(0, 0)
    assert journal.unknown_outcomes(asked.hash) == 0
    assert begun(journal, asked, 100, max_unknown_retries=0).number == 2


def test_an_attempt_ends_once(journal: Journal) -> None:
    attempt = begun(journal, request())
    journal.finish_attempt(attempt, response(), final=True)
    for again in (
        lambda: journal.finish_attempt(attempt, response("other"), final=True),
        lambda: journal.mark_unknown(attempt, "late"),
        lambda: journal.mark_not_sent(attempt, "late"),
        lambda: journal.mark_not_sent(Attempt(99, attempt.hash, 1, 0), "not there"),
    ):
        with pytest.raises(ValueError, match="ended already"):
            again()
    assert journal.money() == Money(100, 0)


@pytest.mark.parametrize("wrong", [-1, 10**15 + 1, 1.0, True])
def test_amounts_are_whole_millionths(journal: Journal, wrong: int) -> None:
    with pytest.raises(ValueError, match="whole number of millionths"):
        journal.begin_attempt(request(), wrong)
    with pytest.raises(ValueError, match="whole number of millionths"):
        journal.set_cost(answered(journal, request(1)), wrong)
    assert journal.answered(request().hash) is None
    assert journal.request(request().hash) is None


# Money


def test_nothing_is_begun_beyond_the_budget(journal: Journal, other: Journal) -> None:
    answered(journal, request(0), cost_micro=300)
    begun(other, request(1), 500)
    with pytest.raises(BudgetReached) as reached:
        journal.begin_attempt(request(2), 201, budget_micro=1000)
    error = reached.value
    assert (error.spent_micro, error.in_flight_micro, error.next_micro, error.budget_micro) == (
        300,
        500,
        201,
        1000,
    )
    assert "0.000300 spent, 0.000500 in flight, up to 0.000201" in str(error)
    assert isinstance(error, TeacherError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own
    assert journal.request(request(2).hash) is None
    assert begun(journal, request(2), 200, budget_micro=1000).number == 1
    got = journal.begin_attempt(request(0), 10**9, budget_micro=0)
    assert isinstance(got, Answer), "what is there costs nothing"


def test_a_cost_is_set_once_whoever_comes_later(journal: Journal, other: Journal) -> None:
    unpriced = answered(journal, request())
    for of, cost, usage in (
        (journal, 70, {"total_tokens": 7}),
        (journal, 60, None),
        (other, 80, {"total_tokens": 8}),
    ):
        got = of.set_cost(unpriced, cost, usage)  # the other one read it before it had a cost
        assert got == journal.answered(request().hash)
        assert (got.cost_micro, got.usage) == (70, {"total_tokens": 7})
        assert journal.money() == Money(70, 0)
    free = answered(journal, request(1), cost_micro=0)
    assert journal.set_cost(free, 5).cost_micro == 0


# Verdicts


def test_a_verdict_can_be_set_again(journal: Journal) -> None:
    got = answered(journal, request())
    assert journal.stats().unread == 1
    for verdict in (Verdict("accepted"), Verdict("filtered", "no_valid_call")):
        got = journal.set_verdict(got, verdict)
        assert got.verdict == verdict
        assert journal.answered(request().hash) == got
        assert journal.stats().verdicts == {(verdict.kind, verdict.reason): 1}


def test_a_withdrawn_answer_is_requested_again(journal: Journal) -> None:
    got = journal.set_verdict(answered(journal, request(), "no such model"), Verdict("error"))
    journal.withdraw(got, "unknown model")
    assert journal.answered(request().hash) is None
    assert journal.stats().not_final == 1
    again = answered(journal, request())
    journal.set_verdict(again, Verdict("accepted", "a call"))
    with pytest.raises(ValueError, match="cannot be withdrawn"):
        journal.withdraw(again, "a mistake")
    assert journal.answered(request().hash) is not None


def test_a_response_that_is_made_final_is_never_asked_for_again(journal: Journal) -> None:
    asked = request()
    refused = journal.finish_attempt(
        begun(journal, asked), response("flagged", 403), final=False, cost_micro=0
    )
    assert journal.answered(asked.hash) is None
    got = journal.make_final(refused)
    assert got.final
    assert got == journal.answered(asked.hash) == journal.begin_attempt(asked, 100) == journal.make_final(got)
    journal.withdraw(got, "a mistake")
    assert [row.reason for row in journal.attempts(asked.hash)] == ["a mistake"]
    journal.make_final(got)
    assert [(row.final, row.reason) for row in journal.attempts(asked.hash)] == [(True, "")]


def test_the_first_final_answer_stays_the_answer(journal: Journal) -> None:
    asked = request()
    late = journal.finish_attempt(begun(journal, asked), response("slow", 500), final=False, cost_micro=0)
    first = answered(journal, asked)
    journal.make_final(late)
    assert journal.answered(asked.hash) == first
    journal.withdraw(first, "unknown model")
    assert journal.answered(asked.hash) == journal.stored(late.id)


def test_changes_together_are_one_commit(journal: Journal, other: Journal) -> None:
    got = [answered(journal, request(number)) for number in range(3)]
    with journal.together():
        for one in got:
            journal.set_verdict(journal.set_cost(one, 5), Verdict("accepted"))
        with pytest.raises(ValueError, match="inside `together`"):
            journal.begin_attempt(request(9), 1)
        assert other.stats().unread == 3
    assert other.stats().verdicts == {("accepted", ""): 3}
    assert other.money() == Money(15, 0)
    with pytest.raises(KeyError):
        _change_and_fail(journal, got[0])
    assert other.stats().verdicts == {("accepted", ""): 3}


def _change_and_fail(journal: Journal, answer: Answer) -> None:
    with journal.together():
        journal.set_verdict(answer, Verdict("filtered"))
        raise KeyError


# Reading


def test_answers_are_read_in_the_callers_order_whenever_they_came(journal: Journal) -> None:
    asked = [request(number) for number in range(600)]
    for one in asked[::-1]:
        answered(journal, one, one.hash)
    assert [one.hash for one in journal.all_answers()] == [one.hash for one in asked]
    chosen = [asked[5], asked[2], request(10_000), asked[9]]
    assert [one.order for one in journal.answers(one.hash for one in chosen)] == [5, 2, 9]


def test_the_smallest_order_counts_whoever_came_first(path: Path) -> None:
    for orders in ((7, 3), (3, 7)):
        with Journal(path.with_name(f"{orders}.db")) as journal:
            for order in orders:
                made = journal.begin_attempt(request(1, order=order), 1)
                if isinstance(made, Attempt):
                    journal.finish_attempt(made, response(), final=True)
            assert [one.order for one in journal.all_answers()] == [3]


def test_stats_count_everything(journal: Journal) -> None:
    journal.set_verdict(answered(journal, request(0), cost_micro=10), Verdict("accepted"))
    journal.set_verdict(answered(journal, request(1)), Verdict("filtered", "refusal"))
    answered(journal, request(2))
    journal.mark_unknown(begun(journal, request(3)), "reset")
    journal.mark_not_sent(begun(journal, request(4)), "refused")
    journal.finish_attempt(begun(journal, request(4)), response("", 503), final=False, cost_micro=0)
    begun(journal, request(5))
    assert journal.stats() == Stats(
        requests=6, answered=3, in_flight=1, unknown=1, late=0, not_sent=1, not_final=1, uncosted=2, unread=1,
        verdicts={("accepted", ""): 1, ("filtered", "refusal"): 1}, money=Money(310, 100),
    )  # fmt: skip


def test_hashes_are_found_by_their_beginning(journal: Journal) -> None:
    asked = sorted(answered(journal, request(number)).hash for number in range(20))
    assert journal.find(asked[4]) == [asked[4]]
    assert journal.find("", 20) == asked
    assert journal.find("") == asked[:10]
    assert journal.find("g") == []
