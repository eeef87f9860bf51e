"""Every fault of the fake server is tried; and what a trial says about a journal that lost or repeated something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import journals
import pytest
from asked_prompts import job_config

from kdfast.config import config_from_dict
from kdfast.recipes.preflight.made.fault_trials import PROMPTS, FaultTrial, Served, judge, try_faults
from kdfast.teacher.api.fake_replies import BEHAVIOURS
from kdfast.teacher.api.journal import Journal, Request, Response, Verdict
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt

BODY = b'{"choices": [{"message": {"content": "echo"}}]}'


@pytest.mark.slow
def test_every_fault_is_tried_and_survived(tmp_path: Path) -> None:
    trials = try_faults(job_config(), tmp_path)
    assert [one.behaviour for one in trials] == list(BEHAVIOURS)
    assert [one for one in trials if not one.kept] == []
    texts = {one.behaviour: one.text for one in trials}
    assert texts["ok"] == "3 of 3 prompts answered with 3 requests"
    assert texts["hang"] == texts["unauthorised"] == "3 of 3 prompts answered with 4 requests"
    assert texts["bad_json"] == "2 of 3 prompts answered with 3 requests; kept for good: invalid_json"
    assert texts["content_filter"] == "2 of 3 prompts answered with 3 requests; kept for good: content_filter"


def test_a_config_that_asks_no_server_needs_none_of_it(tmp_path: Path) -> None:
    values = job_config({"kind": "replay", "journal": "answers.db"}).to_dict()
    assert try_faults(config_from_dict(values), tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def journal() -> Iterator[Journal]:
    with journals.quick_folder() as folder, Journal(folder / "answers.db") as opened:
        yield opened


def asked(behaviour: str) -> list[Asked]:
    found = []
    for number in range(PROMPTS):
        text = f"{behaviour} {number}"
        request = Request("http://localhost/v1/chat/completions", {"messages": [text]}, order=number)
        prompt = Prompt(source=Path("prompts.jsonl"), line=number + 1, index=number, prompt=text)
        found.append(Asked(prompt=prompt, request=request, input_tokens=2))
    return found


def answer(
    journal: Journal, one: Asked, body: bytes = BODY, *, final: bool = True, kind: str = "accepted"
) -> None:
    attempt = journals.begun(journal, one.request)
    stored = journal.finish_attempt(attempt, Response(200, {}, body, 1), final=final)
    journal.set_verdict(stored, Verdict(kind, "" if kind == "accepted" else "no_choices"))


def trial(journal: Journal, items: list[Asked], *played: str, behaviour: str = "reset") -> FaultTrial:
    """The second prompt was served so; the others got their answers at once."""
    served = {str(one.prompt.prompt): [Served("ok", BODY)] for one in items}
    served[str(items[1].prompt.prompt)] = [Served(what, BODY) for what in played]
    return judge(behaviour, journal, items, served)


def test_what_was_kept_is_kept(journal: Journal) -> None:
    items = asked("reset")
    journal.mark_unknown(journals.begun(journal, items[1].request), "reset")
    for one in items:
        answer(journal, one)
    assert trial(journal, items, "reset", "ok").text == "3 of 3 prompts answered with 4 requests"
    assert trial(journal, items, "reset", "ok").kept


def test_a_whole_answer_that_counts_as_lost_is_told(journal: Journal) -> None:
    items = asked("reset")
    answer(journal, items[0])
    answer(journal, items[2])
    journal.mark_unknown(journals.begun(journal, items[1].request), "reset")
    found = trial(journal, items, "ok")
    assert (found.kept, found.text) == (
        False, "the prompt 'reset 1' got a whole answer that is not in the journal"
    )  # fmt: skip


def test_an_answer_with_another_byte_is_told(journal: Journal) -> None:
    items = asked("gzip")
    for one in items:
        answer(journal, one, BODY.replace(b"echo", b"Echo") if one is items[1] else BODY)
    assert (
        trial(journal, items, "gzip").text
        == "the prompt 'gzip 1' got a whole answer that is not in the journal"
    )


def test_what_was_paid_twice_is_told(journal: Journal) -> None:
    items = asked("ok")
    answer(journal, items[0])
    answer(journal, items[2])
    answer(journal, items[1], final=False)
    answer(journal, items[1])
    assert trial(journal, items, "ok", "ok").text == (
        "the prompt 'ok 1' was sent again, though its answer had come whole"
    )


def test_a_request_that_the_journal_does_not_know_is_told(journal: Journal) -> None:
    items = asked("error_500")
    for one in items:
        answer(journal, one)
    found = trial(journal, items, "error_500", "ok")
    assert found.text == "the prompt 'error_500 1' was sent 2 times, and the journal knows of 1"


def test_a_prompt_without_an_answer_is_told(journal: Journal) -> None:
    items = asked("close")
    answer(journal, items[0])
    answer(journal, items[2])
    journal.mark_unknown(journals.begun(journal, items[1].request), "reset")
    assert trial(journal, items, "close").text == "the prompt 'close 1' has no answer in the end"


@pytest.mark.parametrize(("behaviour", "kept"), [("no_choices", True), ("error_503", False)])
def test_only_some_faults_may_end_a_prompt(journal: Journal, behaviour: str, kept: bool) -> None:
    items = asked(behaviour)
    for one in items:
        answer(journal, one, kind="failed" if one is items[1] else "accepted")
    found = trial(journal, items, behaviour, behaviour=behaviour)
    assert found.kept == kept
    assert ("given up for good (no_choices)" in found.text) == (not kept)


def test_a_key_in_the_journal_is_told(journal: Journal) -> None:
    items = asked("unauthorised")
    words = json.dumps({"error": "Incorrect API key provided: Bearer kdfast-preflight-key"}).encode()
    for one in items:
        if one is items[1]:
            answer(journal, one, words, final=False)
        answer(journal, one)
    found = trial(journal, items, "unauthorised", "ok")
    assert found.text.endswith("got the server's key in its answer, and the journal holds it")
