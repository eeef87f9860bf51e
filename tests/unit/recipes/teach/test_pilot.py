"""A pilot's numbers by hand, its verdict with the rule, and what people read at 80 columns."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import journals
import pytest
from asked_prompts import answer_of, ask, call_truth, job_config, job_prompt, reading, weather_tool
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kdfast.config import TeacherConfig
from kdfast.recipes.teach.pilot import Pair, Pilot, judge, pilot_report, with_interval
from kdfast.recipes.teach.pilot_scores import right_text, score_asked
from kdfast.recipes.teach.pilot_table import print_pilot
from kdfast.scoring import Share
from kdfast.teacher.api.journal import Attempt, Journal, Verdict
from kdfast.teacher.api.price import FREE, JobCost, Price
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Truth
from kdfast.teacher.reading import Reading

PRICE = Price(input=1_000_000, cached=1_000_000, output=4_000_000, reasoning=4_000_000)
TOOLS = [weather_tool()]


@pytest.fixture
def journal() -> Iterator[Journal]:
    with journals.quick_folder() as folder, Journal(folder / "answers.db") as opened:
        yield opened


def due(index: int = 0, *cities: str, **parts: Any) -> Asked:
    """A prompt that needs these calls, of one for Rome if none are given."""
    told = {"tools": TOOLS, "truth": call_truth(*(cities or ("Rome",))), "should_call": True, **parts}
    return ask(job_prompt(index, **told), worst_micro=1000)


def not_due(index: int = 0) -> Asked:
    prompt = job_prompt(index, tools=TOOLS, truth=call_truth(), should_call=False)
    return ask(prompt, worst_micro=1000)


def report(journal: Journal, asked: list[tuple[Asked, Reading | None]], **settings: Any) -> Pilot:
    """A pilot whose answers are in the journal; no reading: the outcome of the request is unknown."""
    pairs: list[Pair] = []
    for one, read in asked:
        if read is None:
            attempt = journal.begin_attempt(one.request, one.worst_micro)
            assert isinstance(attempt, Attempt)
            journal.mark_unknown(attempt, "read_timeout")
        pairs.append((one, None if read is None else answer_of(journal, one, cost_micro=100), read))
    config = settings.pop("config", None) or job_config({"max_new_tokens": 100})
    return pilot_report(pairs, config, journal=journal, **{"price": PRICE, **settings})


def counts(pilot: Pilot) -> dict[str, str]:
    return {name: f"{share['count']}/{share['total']}" for name, share in pilot.shares.items()}


def test_each_share_by_hand(journal: Journal) -> None:
    pilot = report(
        journal,
        [
            (due(0), reading("Rome")),
            (due(1), reading("Oslo")),  # valid, and not what was asked for
            (due(2), reading("Rome", kind="filtered", reason="schema_broken")),
            (due(3), reading(kind="filtered", reason="refusal")),
            (due(4), reading(broken_calls=1, kind="filtered", reason="cut")),
            (due(5), None),
            (not_due(6), reading()),
            (not_due(7), reading("Rome")),
            (not_due(8), reading(broken_calls=1)),
            (not_due(9), None),
        ],
    )
    assert counts(pilot) == {
        "schema_valid": "2/6",
        "exact_match": "2/6",  # BFCL compares values: the one that broke its schema has the right ones
        "right_function": "3/6",
        "missed_calls": "3/6",
        "false_calls": "2/3",  # the prompt without an answer says nothing
        "attempted_calls": "1/3",
    }
    assert pilot.prompts == 10
    assert pilot.failed == {"no answer came": 2}
    assert pilot.filtered == {"schema_broken": 1, "refusal": 1, "cut": 1}
    assert [one.line for one in pilot.wrong] == [8, 9, 4, 5, 6]  # false calls, no call; the rest is left out
    assert [one.why for one in pilot.wrong] == [
        "no call is due",
        "no call is due: attempted",
        "no call (filtered: refusal)",
        "broken_call: 1 cut off, malformed or in another format (filtered: cut)",
        "no answer: no answer came",
    ]


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [({"city": "Rome"}, True), ({"city": 3}, False), ({}, False), ({"city": "\ud800"}, False)],
)
def test_calls_are_valid_by_their_schema_whatever_the_verdict_says(
    arguments: dict[str, Any], valid: bool
) -> None:
    made = Reading(**{**vars(reading()), "calls": (("weather", arguments),)})
    score = score_asked(due(), None, made).score
    assert score is not None
    assert score.schema_valid is valid


def test_tools_that_are_no_schema_make_no_call_valid(journal: Journal) -> None:
    bad = {"type": "function", "function": {"name": "weather", "parameters": {"type": "town"}}}
    pilot = report(journal, [(due(0, tools=[bad]), reading("Rome"))])
    assert (counts(pilot)["schema_valid"], pilot.bad_tools) == ("0/1", 1)
    assert "1 prompts: no valid JSON Schema" in printed(pilot)


@pytest.mark.parametrize(
    ("truth", "said", "exact"),
    [
        (call_truth("Rome"), None, True),
        (Truth(text="Sunny.", accepted=[{"weather": {"city": ["Roma", "Rome"]}}]), None, True),
        (Truth(message=call_truth("Oslo").message, accepted=[{"weather": {"city": ["Rome"]}}]), None, True),
        (
            Truth(text='<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
            None,
            True,
        ),
        (
            Truth(
                message={"tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]}
            ),
            None,
            True,
        ),
        (Truth(message={"tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}), None, True),
        (Truth(message={"function_call": {"name": "weather", "arguments": {"city": "Rome"}}}), None, True),
        (Truth(message={"tool_calls": [{"function": {"name": "weather", "arguments": "{"}}]}), True, False),
    ],
)
def test_a_right_answer_in_each_form(truth: Truth, said: bool | None, exact: bool) -> None:
    prompt = job_prompt(tools=TOOLS, truth=truth, should_call=said)
    score = score_asked(ask(prompt), None, reading("Rome")).score
    assert score is not None
    assert (score.should_call, score.exact_match) == (True, exact)


def test_a_text_without_a_call_needs_none() -> None:
    prompt = job_prompt(tools=TOOLS, truth=Truth(text="No tool can tell."))
    score = score_asked(ask(prompt), None, reading("Rome")).score
    assert score is not None
    assert score.false_call
    assert right_text(prompt) == "No tool can tell."


def test_a_prompt_that_nobody_can_judge_is_no_part_of_a_pilot() -> None:
    with pytest.raises(ValueError, match="line 3"):
        score_asked(ask(job_prompt(2, tools=TOOLS)), None, reading("Rome"))
    assert (
        score_asked(ask(job_prompt(2, tools=TOOLS, should_call=False)), None, reading("Rome")).right
        == "no call"
    )


def share(count: int, total: int) -> dict[str, Any]:
    return with_interval(Share(count=count, total=total))


@pytest.mark.parametrize(
    ("valid", "false", "verdict"),
    [
        ((20, 20), (0, 10), "go"),
        ((15, 20), (2, 10), "go"),
        ((15, 20), (0, 0), "go"),
        ((13, 20), (0, 10), "not enough evidence"),  # 43 to 82 %
        ((2, 2), (0, 0), "not enough evidence"),  # 34 to 100 %
        ((15, 20), (4, 10), "not enough evidence"),  # false calls: 17 to 69 %
        ((15, 20), (8, 10), "no-go"),
        ((4, 20), (0, 10), "no-go"),
        ((0, 0), (0, 10), "not enough evidence"),
        ((0, 0), (10, 10), "no-go"),
    ],
)
def test_the_verdict(valid: tuple[int, int], false: tuple[int, int], verdict: str) -> None:
    found, rules = judge(share(*valid), share(*false), TeacherConfig(), 30)
    assert found == verdict
    assert ("ask more prompts: --pilot 60" in rules) == (verdict == "not enough evidence")


def test_the_rules_in_words() -> None:
    assert judge(share(15, 20), share(4, 10), TeacherConfig(), 30)[1] == (
        "valid calls must surely be above 50 % (teacher.pilot_min_valid_fraction): met, 15 of 20"
        " (95 % interval: 53 to 89 %)",
        "false calls must be at most 25 % (teacher.pilot_max_false_fraction): not sure, 4 of 10"
        " (95 % interval: 17 to 69 %)",
        "ask more prompts: --pilot 60",
    )
    rules = judge(share(0, 0), share(0, 0), TeacherConfig(), 30)[1]
    assert rules[0].endswith("not judged, no prompt here needs a call")
    assert rules[1].endswith("not judged, each prompt here needs a call")


@given(st.integers(1, 200), st.data())
def test_an_interval_holds_its_share_and_is_never_a_point(total: int, data: st.DataObject) -> None:
    found = share(data.draw(st.integers(0, total)), total)
    assert 0 <= found["low"] <= found["fraction"] <= found["high"] <= 1
    assert found["low"] < found["high"]
    # Wilson: both ends are the shares p whose own spread just reaches what was found.
    for end in (found["low"], found["high"]):
        spread = 1.959963984540054 * (end * (1 - end) / total) ** 0.5
        assert abs(end - found["fraction"]) == pytest.approx(spread, abs=1e-9)


def test_the_cost_of_the_pilot_and_of_the_whole(journal: Journal) -> None:
    done = [(due(index), reading("Rome")) for index in range(5)]
    rest = [due(index) for index in range(10, 20)]
    pilot = report(journal, [*done, (due(5), None)], rest=rest)
    assert pilot.cost_micro == 5 * 100 + 1000  # an unknown outcome counts with its worst case
    assert pilot.rest.length_source.startswith("measured on 5 answers")
    assert pilot.rest.cost == JobCost(
        low=3000, expected=3000, worst=20_000
    )  # 50 tokens each, as in the pilot
    assert pilot.whole == JobCost(low=4500, expected=4500, worst=21_500)
    assert pilot.tokens_per_second == 50.0
    document = json.loads(json.dumps(pilot.to_json()))
    assert document["whole"] == {"low": 4500, "expected": 4500, "worst": 21_500}
    assert document["wrong"][0] == {
        "line": 6, "right": 'weather({"city": "Rome"})', "said": "", "why": "no answer: no answer came",
    }  # fmt: skip
    assert document["rest"]["requests"] == 10
    assert document["shares"]["schema_valid"]["total"] == 6
    assert document["exit_code"] == pilot.exit_code


def test_the_reason_of_a_failure_is_that_of_the_journal(journal: Journal) -> None:
    asked = due()
    answer = journal.set_verdict(answer_of(journal, asked), Verdict("failed", "content_filter"))
    assert score_asked(asked, answer, None).why == "no answer: content_filter"
    assert score_asked(asked, answer, reading(kind="failed", reason="refused")).failed == "refused"
    assert score_asked(asked, None, None).failed == "no answer came"


def test_a_free_teacher_has_no_cost(journal: Journal) -> None:
    pilot = report(journal, [(due(), None)], price=FREE)
    assert pilot.cost_micro is None
    assert pilot.whole is None
    assert pilot.tokens_per_second is None
    text = printed(pilot)
    assert "free" in text
    assert "0.00" not in text
    assert "unknown" in text  # the speed


def test_exit_codes(journal: Journal) -> None:
    good = [(due(index), reading("Rome")) for index in range(10)]
    assert report(journal, good).exit_code == 0
    assert report(journal, [(due(20), reading("Rome"))]).exit_code == 3
    assert report(journal, [(due(index), reading()) for index in range(30, 40)]).exit_code == 3


def printed(pilot: Pilot, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_pilot(console, pilot)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text  # type: ignore[no-any-return]


def test_what_people_read(journal: Journal) -> None:
    odd = reading(text="[bold]I[/bold] cannot " + "really " * 100, kind="filtered", reason="no_valid_call")
    pilot = report(journal, [(due(0), reading("Rome")), (due(1), odd), (not_due(2), reading("Rome"))])
    text = printed(pilot)
    shares = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    assert ["valid by its schema", "1/2 50 % (9 to 91)"] in shares
    assert ["false calls (none due)", "1/1 100 % (21 to 100)"] in shares
    assert "no_valid_call 1" in text
    assert "[bold]I[/bold]" in text  # a text is no markup
    assert "not enough evidence" in text
    assert "--pilot 6" in text
