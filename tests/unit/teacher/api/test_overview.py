"""A line for each request of a journal, and one request whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import asked_journal
import journals
import pytest
from journals import begun, request

from kdfast.teacher.api.journal import Answer, Journal, Response
from kdfast.teacher.api.overview import Filter, charge_micro, list_requests, question, read_all, whole_request


@pytest.fixture
def asked(path: Path) -> Iterator[Journal]:
    with asked_journal.build(path) as journal:
        yield journal


# The list


def test_a_line_a_request_by_order(asked: Journal) -> None:
    rows = list(list_requests(asked))
    assert [row["order"] for row in rows] == list(range(7))
    assert [[one["state"] for one in row["attempts"]] for row in rows] == [
        ["not_final", "answered"], ["answered"], ["answered"], ["unknown"], ["not_sent"], ["in_flight"], ["answered"],
    ]  # fmt: skip
    assert [row["cost_micro"] for row in rows] == [150, 160, 900, 900, 0, 900, 140]
    assert [row["cost_is_known"] for row in rows] == [True, True, False, False, True, False, True]
    assert [row["status"] for row in rows] == [200, 200, 200, None, None, None, 200]
    assert rows[1]["verdict"] == {"kind": "filtered", "reason": "cut"}
    assert (rows[0]["model"], rows[0]["question"], rows[0]["latency_ms"]) == ("m", "question 0", 400)
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("wanted", "orders"),
    [
        (Filter(verdict="accepted"), [0, 6]),
        (Filter(verdict="filtered", reason="cut"), [1]),
        (Filter(verdict="accepted", reason="cut"), []),
        (Filter(reason=""), [0, 6]),
        (Filter(state="not_final"), [0]),
        (Filter(state="answered"), [0, 1, 2, 6]),
        (Filter(state="unknown"), [3]),
        (Filter(state="in_flight"), [5]),
    ],
)
def test_filters(asked: Journal, wanted: Filter, orders: list[int]) -> None:
    assert [row["order"] for row in list_requests(asked, wanted)] == orders


def test_the_charges_are_the_journals_money(asked: Journal) -> None:
    attempts = [row for _, rows, _ in read_all(asked) for row in rows]
    money = asked.money()
    assert sum(map(charge_micro, attempts)) == money.spent_micro + money.in_flight_micro


def test_an_answer_that_comes_while_it_is_read_has_its_attempt(journal: Journal, other: Journal) -> None:
    """The answer is read first: an attempt that ends between both reads is no contradiction."""
    attempt = begun(other, request(0))

    def answer_now(sql: str) -> None:
        if "ORDER BY number" in sql:  # the attempts are about to be read
            journal.database._connection.set_trace_callback(None)
            other.finish_attempt(attempt, journals.response(), final=True)

    journal.database._connection.set_trace_callback(answer_now)
    ((_, attempts, answer),) = read_all(journal)
    assert (answer, [row.state for row in attempts]) == (None, ["answered"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "b"),
        ({"messages": [{"role": "user", "content": None}]}, ""),
        ({"messages": [{"role": "user"}, "no message", None]}, ""),
        ({"messages": [{"role": "user", "content": [{"text": "a"}, {"image": 1}, 7, {"text": "b"}]}]}, "a b"),
        ({"messages": None, "prompt": "text"}, "text"),
        ({"messages": {}, "prompt": [1, 2]}, ""),
        ({}, ""),
    ],
)
def test_the_last_words_of_the_user(body: object, words: str) -> None:
    assert question(body) == words


# One request


def test_a_request_whole(asked: Journal) -> None:
    sent = request(0)
    found = whole_request(asked, sent.hash)
    assert (found["request"], found["body"], found["order"], found["answer"]) == (sent.hash, sent.body, 0, 2)
    first, second = found["attempts"]
    assert first["response"] == {"error": {"message": "slow down"}}
    assert (first["status"], first["state"], first["headers"]) == (429, "not_final", {"retry-after": "1"})
    assert second["usage"]["cached_tokens"] == 60
    assert second["verdict"] == {"kind": "accepted", "reason": ""}
    stored = asked.answered(sent.hash)
    assert isinstance(stored, Answer)
    assert second["digest"] == stored.digest


def test_a_response_that_is_no_json_is_a_text(asked: Journal) -> None:
    (attempt,) = whole_request(asked, request(2).hash)["attempts"]
    assert attempt["response_text"] == "<h1>\x1b[31mno JSON\\xff</h1>"
    assert "response" not in attempt


def test_a_request_without_a_response(asked: Journal) -> None:
    found = whole_request(asked, request(3).hash)
    (attempt,) = found["attempts"]
    assert (found["answer"], attempt["state"], attempt["reason"]) == (
        None,
        "unknown",
        "no whole response came: read timeout",
    )
    assert not {"response", "response_text", "digest"} & attempt.keys()


def test_a_request_that_is_not_there(asked: Journal) -> None:
    with pytest.raises(ValueError, match="not in the journal: ab"):
        whole_request(asked, "ab")


def test_a_final_refusal_is_an_answer(journal: Journal) -> None:
    asked = request(0)
    journal.finish_attempt(begun(journal, asked), Response(400, {}, b"bad", 3), final=True, cost_micro=0)
    (row,) = list_requests(journal)
    assert (row["status"], row["cost_micro"], row["cost_is_known"]) == (400, 0, True)
