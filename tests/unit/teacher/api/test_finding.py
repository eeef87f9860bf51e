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
        note(journal, [replace(found(kept), cost_micro=8)])
        assert journal.money().spent_micro == 8
