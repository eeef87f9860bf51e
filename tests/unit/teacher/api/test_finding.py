"""What is noted about a stored response: once, from its status, its body and its reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import journals
import pytest
from teach_jobs import COST_MICRO, asked, read, settings

from kdfast.teacher.api.finding import Finding, find, is_charged, is_final, judge_stored, note
from kdfast.teacher.api.journal import Answer, Journal, Verdict
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import OF_DATASET, Reading

URL = "http://localhost/v1"
MESSAGE = {"role": "assistant", "content": "echo: question 0"}
CHOICE = {"message": MESSAGE, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3}
TOKENS = {"input_tokens": 9, "output_tokens": 3, "cached_tokens": 0, "reasoning_tokens": 0}


@pytest.fixture
def folder_journal(path: Path) -> Journal:
    return Journal(path)


def stored(journal: Journal, body: str, status: int = 200) -> Answer:
    attempt = journals.begun(journal, asked(URL, 0).request)
    return journal.finish_attempt(attempt, journals.response(body, status), final=True)


def found(answer: Answer, **changes: object) -> Finding:
    limits = settings(**changes)  # type: ignore[arg-type]
    return find(asked(URL, 0), answer, judge_stored(answer, limits), read, limits)


def test_what_is_final_and_what_is_charged() -> None:
    later = {401, 402, 403, 404, 407, 408, 409, 429}
    assert {status for status in range(200, 600) if is_final(status)} == {
        *range(200, 300),
        *(set(range(400, 500)) - later),
    }
    assert {status for status in range(200, 600) if is_charged(status)} == set(range(200, 300))


def test_an_accepted_answer_is_read(folder_journal: Journal) -> None:
    with folder_journal as journal:
        one = found(stored(journal, json.dumps({"choices": [CHOICE], "usage": USAGE})))
    assert (one.decision.action, one.verdict, one.cost_micro) == ("accept", Verdict("accepted"), COST_MICRO)
    assert one.usage == TOKENS
    assert one.reading is not None


@pytest.mark.parametrize(
    ("body", "reason", "usage"),
    [
        ("no json", "invalid_json", None),
        ("[1]", "no_choices", None),
        ('{"choices": []}', "empty_choices", None),
        (json.dumps({"error": "Overloaded", "usage": USAGE}), "error_in_answer", TOKENS),
    ],
)
def test_what_is_no_answer_is_never_read(
    folder_journal: Journal, body: str, reason: str, usage: dict[str, int] | None
) -> None:
    with folder_journal as journal:
        one = found(stored(journal, body))
        unpriced = found(one.answer, cost_of=None)
    assert (one.reading, one.verdict, one.usage) == (None, Verdict("failed", reason), usage)
    assert one.cost_micro == (None if usage is None else COST_MICRO)
    assert unpriced.cost_micro is None


def test_a_refusal_stays_free(folder_journal: Journal) -> None:
    with folder_journal as journal:
        answer = stored(journal, json.dumps({"error": "content policy", "usage": USAGE}), 400)
        one = found(replace(answer, cost_micro=0))
    assert (one.verdict, one.cost_micro, one.usage) == (Verdict("failed", "content_filter"), 0, None)


def test_only_what_is_new_is_written(path: Path, folder_journal: Journal) -> None:
    with folder_journal as journal:
        answer = stored(journal, json.dumps({"choices": [CHOICE], "usage": USAGE}))
        note(journal, [found(answer)])
        kept = journal.answered(answer.hash)
        assert kept is not None
        assert (kept.verdict, kept.cost_micro, kept.usage) == (Verdict("accepted"), COST_MICRO, TOKENS)
        before = path.read_bytes()
        note(journal, [found(kept)])
        note(journal, [])
        assert path.read_bytes() == before


def test_a_later_price_changes_no_bill(folder_journal: Journal) -> None:
    with folder_journal as journal:
        answer = stored(journal, json.dumps({"choices": [CHOICE], "usage": USAGE}))
        note(journal, [found(answer)])
        kept = journal.answered(answer.hash)
        assert kept is not None

        def dear(one: Asked, stored: Answer) -> Reading:
            return replace(read(one, stored), verdict=Verdict("filtered", "strict"), cost_micro=999)

        for seen in (answer, kept):  # also by another process, which read it before its cost was noted
            limits = settings()
            note(journal, [find(asked(URL, 0), seen, judge_stored(seen, limits), dear, limits)])
            assert journal.money().spent_micro == COST_MICRO
        assert journal.stats().verdicts == {("filtered", "strict"): 1}


@pytest.mark.parametrize("verdict", OF_DATASET)
def test_the_last_word_of_the_dataset_stays_and_a_missing_cost_is_noted(
    folder_journal: Journal, verdict: Verdict
) -> None:
    with folder_journal as journal:
        answer = journal.set_verdict(
            stored(journal, json.dumps({"choices": [CHOICE], "usage": USAGE})), verdict
        )
        note(journal, [found(answer)])
        kept = journal.answered(answer.hash)
    assert kept is not None
    assert (kept.verdict, kept.cost_micro) == (verdict, COST_MICRO)


@pytest.mark.parametrize("tokens", [10**18, 10**9])
def test_a_cost_that_nobody_can_pay_counts_as_the_worst_case(folder_journal: Journal, tokens: int) -> None:
    body = json.dumps({"error": "x", "usage": {"prompt_tokens": tokens, "completion_tokens": 3}})
    with folder_journal as journal:
        one = found(stored(journal, body), cost_of=lambda usage: usage.input_tokens * 10**7)
        assert one.cost_micro is None
        note(journal, [one])
        assert journal.stats().uncosted == 1
        assert journal.money().spent_micro == journal.attempts(one.answer.hash)[0].worst_micro > 0


def test_the_job_decides_what_an_answer_cost_whose_reading_does_not_say(folder_journal: Journal) -> None:
    def unsure(one: Asked, answer: Answer) -> Reading:
        return replace(read(one, answer), verdict=Verdict("failed", "repeated_index"), cost_micro=None)

    with folder_journal as journal:
        answer = stored(journal, json.dumps({"choices": [CHOICE], "usage": USAGE}))
        limits = settings()
        one = find(asked(URL, 0), answer, judge_stored(answer, limits), unsure, limits)
        silent = replace(answer, body=json.dumps({"choices": [CHOICE]}).encode())
        other = find(asked(URL, 0), silent, judge_stored(silent, limits), unsure, limits)
    assert (one.verdict, one.cost_micro, one.usage) == (
        Verdict("failed", "repeated_index"),
        COST_MICRO,
        TOKENS,
    )
    assert other.cost_micro is None
