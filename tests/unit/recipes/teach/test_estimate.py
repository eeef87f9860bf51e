"""What a dry run says: numbers by hand, nothing unknown shown as 0, and readable at 80 columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import journals
import pytest
from asked_prompts import answer_of, ask, job_config, job_prompt
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kdfast.config import Config
from kdfast.recipes.teach.estimate import Estimate, estimate, estimate_lines, print_estimate
from kdfast.recipes.teach.measured import GUESS
from kdfast.teacher.api.journal import Journal, Response
from kdfast.teacher.api.price import FREE, JobCost, Price, to_micro
from kdfast.teacher.asked import Asked

PRICE = Price(input=1_000_000, cached=100_000, output=4_000_000, reasoning=4_000_000)


@pytest.fixture
def journal() -> Iterator[Journal]:
    with journals.quick_folder() as folder, Journal(folder / "answers.db") as opened:
        yield opened


def jobs(count: int, start: int = 0, **settings: Any) -> list[Asked]:
    return [ask(job_prompt(index), **settings) for index in range(start, start + count)]


def printed(found: Estimate, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_estimate(console, found)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def line(found: Estimate, name: str) -> str:
    return dict(estimate_lines(found))[name]


def test_tokens_and_cost_by_hand() -> None:
    asked = jobs(10, input_tokens=100, shared_tokens=40, worst_micro=600)
    found = estimate(asked, None, job_config({"max_new_tokens": 100}), PRICE, answered=3)
    assert (found.prompts, found.requests, found.answered) == (10, 10, 3)
    assert (found.input_tokens, found.shared_tokens) == (1000, 400)
    assert found.output_tokens.__dict__ == {"low": 50, "expected": 250, "worst": 1000}
    # low: 60 + 40 * 0.1 + 5 * 4; expected: 100 + 25 * 4; worst: as the requests say, each sent twice
    assert found.cost == JobCost(low=840, expected=2000, worst=12_000)
    assert found.length == GUESS
    assert found.length_source == (
        "a guess, 5 % to 25 % of 100 tokens: the journal has 0 answers that tell it, 5 are needed"
    )


def test_two_answers_to_a_prompt_are_one_prompt() -> None:
    prompt = job_prompt()
    found = estimate([ask(prompt), ask(prompt)], None, job_config(), FREE)
    assert (found.prompts, found.requests) == (1, 1)  # the second one has the first one's answer


def test_a_request_that_is_there_twice_is_sent_once() -> None:
    asked = [*jobs(3, worst_micro=600), *jobs(2, worst_micro=600)]
    repeated = [replace(one, prompt=job_prompt(9 + place)) for place, one in enumerate(asked[3:])]
    config = job_config({"budget": 0.0036}, {"tokens_per_minute": 1000.0})
    found = estimate([*asked, *repeated], None, config, PRICE)
    alone = estimate(jobs(3, worst_micro=600), None, config, PRICE)
    assert replace(found, prompts=3) == alone
    assert (found.prompts, found.requests, found.covered) == (5, 3, 3)


def test_the_limit_of_a_request_counts_and_not_that_of_the_config(journal: Journal) -> None:
    config = job_config({"max_new_tokens": 100}, {"max_reasoning_tokens": 40})
    found = estimate(jobs(10, output_tokens=2000), None, config, PRICE)
    assert found.output_tokens.worst == 10 * 2040
    assert "of 2040 tokens" in found.length_source
    for one in jobs(5):
        answer_of(journal, one, output_tokens=1020)
    measured = estimate(jobs(10, start=50, output_tokens=2000), journal, config, PRICE)
    assert (measured.length.expected, measured.output_tokens.expected) == (0.5, 10_200)


def test_a_local_teacher_costs_nothing_whatever_the_price() -> None:
    found = estimate(jobs(2), None, job_config({"kind": "local", "budget": 1.0}), PRICE)
    assert (found.cost, found.covered) == (None, None)


def test_lengths_are_measured_on_answers_of_this_model_alone(journal: Journal) -> None:
    for one in jobs(20, model="another"):
        answer_of(journal, one, output_tokens=100)
    for one, tokens in zip(jobs(5), [16, 16, 32, 64, 96], strict=True):
        answer_of(journal, one, output_tokens=tokens)
    found = estimate(jobs(10, start=50), journal, job_config({"max_new_tokens": 128}), PRICE)
    assert (found.length.low, found.length.expected) == (16 / 128, pytest.approx(44.8 / 128))
    assert found.length_source == "measured on 5 answers in the journal: 45 tokens on average"
    assert (found.output_tokens.low, found.output_tokens.expected) == (160, 450)


def test_four_answers_and_those_that_do_not_tell_are_too_few(journal: Journal) -> None:
    asked = jobs(8)
    for one in asked[:4]:
        answer_of(journal, one)
    for one in asked[4:7]:
        answer_of(journal, one, output_tokens=None)
    refused = journal.begin_attempt(asked[7].request, 0)
    journal.finish_attempt(refused, Response(400, {}, b"no JSON", 1), final=True)  # type: ignore[arg-type]
    found = estimate(jobs(3, start=50), journal, job_config(), PRICE)
    assert found.length == GUESS
    assert "the journal has 4 answers that tell it" in found.length_source


def test_an_answer_longer_than_allowed_counts_as_the_longest(journal: Journal) -> None:
    for one in jobs(5):
        answer_of(journal, one, output_tokens=900)
    found = estimate(jobs(2, start=50), journal, job_config({"max_new_tokens": 100}), PRICE)
    assert found.output_tokens.expected == found.output_tokens.worst == 200
    with_reasoning = job_config({"max_new_tokens": 100}, {"max_reasoning_tokens": 1700})
    assert estimate(jobs(2, start=50), journal, with_reasoning, PRICE).output_tokens.expected == 1800


def test_the_low_length_is_never_above_the_expected_one(journal: Journal) -> None:
    for one, tokens in zip(jobs(20), [0] + [100] * 19, strict=True):
        answer_of(journal, one, output_tokens=tokens)
    found = estimate(jobs(1, start=50), journal, job_config({"max_new_tokens": 100}), PRICE)
    assert found.length.low == found.length.expected == 0.95


def covered_slowly(worsts: list[int], spent: int, budget: int, tries: int) -> int:
    """Sends one request after the other, each as dear and as often as can be."""
    sent = 0
    for worst in worsts:
        spent += worst * tries
        if spent > budget:
            break
        sent += 1
    return sent


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 400), st.integers(0, 3))
def test_the_requests_that_a_budget_surely_pays(worsts: list[int], budget: int, retries: int) -> None:
    asked = [ask(job_prompt(index), worst_micro=worst) for index, worst in enumerate(worsts)]
    config = job_config({"budget": budget / 1e6, "max_unknown_retries": retries})
    found = estimate(asked, None, config, PRICE)
    assert found.budget_micro == to_micro(budget / 1e6) == budget
    assert found.covered == covered_slowly(worsts, 0, budget, 1 + retries)


def test_what_was_spent_is_taken_off_the_budget(journal: Journal) -> None:
    answer_of(journal, ask(job_prompt()), cost_micro=500)
    journal.begin_attempt(ask(job_prompt(1)).request, worst_micro=200)
    asked = jobs(10, start=50, worst_micro=60)
    found = estimate(asked, journal, job_config({"budget": 0.001}), PRICE)
    assert found.spent_micro == 700
    assert found.covered == 2  # each may cost 60 twice, and 300 are left
    assert line(found, "spent so far") == "0.000700"
    assert line(found, "budget") == "0.0010: surely enough for 2 of 10 requests"
    enough = estimate(asked, journal, job_config({"budget": 1.0}), PRICE)
    assert line(enough, "budget") == "1.00: enough for all requests, even at their worst"
    assert line(estimate(asked, journal, job_config(), PRICE), "budget") == "none (teacher.budget)"


@pytest.mark.parametrize("price", [None, FREE])
def test_what_is_free_is_not_shown_as_money(price: Price | None) -> None:
    found = estimate(jobs(2), None, job_config({"budget": 1.0}), price)
    assert found.cost is None
    assert found.covered is None
    assert "budget" not in dict(estimate_lines(found))
    assert "0.00" not in printed(found)
    assert "free" in printed(found)


@pytest.mark.parametrize(
    ("api", "seconds", "reason"),
    [
        ({"requests_per_minute": 10.0}, 1800, "api.requests_per_minute"),
        ({"tokens_per_minute": 1000.0}, 300 * (100 + 512) * 60 / 1000, "api.tokens_per_minute"),
        ({"requests_per_minute": 10.0, "tokens_per_minute": 10**9}, 1800, "api.requests_per_minute"),
        (  # as the job does, also before it knows what the server adds
            {"tokens_per_minute": 1000.0, "max_reasoning_tokens": 400},
            300 * (100 + 512 + 400) * 60 / 1000,
            "api.tokens_per_minute",
        ),
    ],
)
def test_time_by_the_limits(api: dict[str, Any], seconds: float, reason: str) -> None:
    time = estimate(jobs(300), None, job_config(api=api), PRICE).time
    assert (time.seconds, time.reason, time.at_least) == (pytest.approx(seconds), reason, True)


def test_time_by_the_answers_so_far(journal: Journal) -> None:
    for one, latency in zip(jobs(3), [1000, 2000, 9000], strict=True):
        answer_of(journal, one, latency_ms=latency)
    asked = jobs(80, start=50)
    time = estimate(asked, journal, job_config(api={"concurrency": 4}), PRICE).time
    assert (time.seconds, time.at_least) == (40.0, False)
    assert time.reason == "2 s an answer (median of 3), 4 at once"
    limited = estimate(asked, journal, job_config(api={"requests_per_minute": 1.0}), PRICE)
    assert line(limited, "time") == "about 80 min by api.requests_per_minute"
    alone = estimate(asked[:1], journal, job_config(api={"concurrency": 4}), PRICE)
    assert alone.time.seconds == 2.0


@pytest.mark.parametrize(
    ("teacher", "count", "text"),
    [
        ({}, 5, "unknown: no limit is set, and the journal has no answer whose time could tell"),
        ({"kind": "local"}, 5, "unknown: the speed of a local teacher is not known before it runs"),
        ({}, 0, "there is nothing to send"),
    ],
)
def test_a_time_that_nobody_knows_is_not_0(teacher: dict[str, Any], count: int, text: str) -> None:
    assert line(estimate(jobs(count), None, job_config(teacher), PRICE), "time") == text


def test_a_limit_alone_gives_the_least_time() -> None:
    found = estimate(jobs(10), None, job_config(api={"requests_per_minute": 60.0}), PRICE)
    assert (
        line(found, "time")
        == "at least 10 s by api.requests_per_minute; more is unknown: the journal has no answer"
    )


def test_the_json_form_has_every_number(journal: Journal) -> None:
    found = estimate(jobs(2, worst_micro=9), journal, job_config({"budget": 1.0}), PRICE)
    document = json.loads(json.dumps(found.to_json()))
    assert document["cost"] == {"low": found.cost.low, "expected": found.cost.expected, "worst": 36}  # type: ignore[union-attr]
    assert document["time"] == {"seconds": None, "reason": found.time.reason, "at_least": False}
    assert document["output_tokens"]["worst"] == 1024
    assert (document["budget_micro"], document["covered"]) == (1_000_000, 2)


def big(config: Config) -> Estimate:
    return estimate(jobs(9, input_tokens=10**9, worst_micro=10**12), None, config, PRICE)


def test_nothing_is_cut_at_80_columns(tmp_path: Path) -> None:
    text = printed(big(job_config({"budget": 10.0})))
    table = text[text.index("still to be sent") :]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in text
    assert "9,000,000,000" in table
    assert "18000000.00" in table
