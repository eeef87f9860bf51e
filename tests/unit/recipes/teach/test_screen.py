"""What is shown while a teacher answers: counts that add up, one warning of a kind, and nothing cut at 80 columns."""

from __future__ import annotations

import io
from typing import Any

from asked_prompts import ask, job_prompt, reading
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kdfast.display import Display
from kdfast.recipes.teach.counts import TeachCounts
from kdfast.recipes.teach.facts import facts_table
from kdfast.recipes.teach.screen import TeachScreen
from kdfast.teacher.api.job_report import Event, EventKind
from kdfast.teacher.api.reply import Origin
from kdfast.teacher.api.retry import Decision
from kdfast.teacher.api.usage import Usage

ONE, OTHER = Origin("m-1"), Origin("m-2", "house", "fp_1")


class Clock:
    """Gives the time that was set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def event(kind: EventKind, line: int = 1, **parts: Any) -> Event:
    return Event(kind=kind, asked=ask(job_prompt(line - 1), worst_micro=1000), **parts)


def answered(line: int = 1, kind: EventKind = "answered", **parts: Any) -> Event:
    return event(kind, line, reading=reading("Rome", **{"cost_micro": 100, "origin": ONE, **parts}))


def failed(reason: str, words: str = "the server's words", line: int = 1) -> Event:
    return event("failed", line, decision=Decision(action="give_up", reason=reason, words=words))


def screen(total: int = 10, *, terminal: bool = False, width: int = 80, **settings: Any) -> TeachScreen:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    return TeachScreen(Display(console), total, **{"priced": True, **settings})


def shown(of: TeachScreen) -> str:
    return of.display.console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_each_count_by_hand() -> None:
    counts = TeachCounts()
    for one in (
        answered(usage=Usage(input_tokens=100, output_tokens=30)),
        answered(kind="reused"),
        answered(kind="reused", reasoning_tokens=7, usage_counted=True),
    ):
        counts.add(one)
    counts.add(
        event("answered", reading=reading(kind="filtered", reason="cut", cost_micro=20, reasoning_tokens=3))
    )
    counts.add(event("answered", reading=reading(kind="failed", reason="content_filter", cost_micro=5)))
    counts.add(failed("context_length"))
    counts.add(event("reused", decision=Decision(action="give_up", reason="context_length")))
    counts.add(event("failed"))
    counts.add(event("retried"))
    counts.add(event("unknown"))
    counts.add(event("waiting"))
    counts.add(event("origin_changed", reading=reading("Rome")))
    assert counts == TeachCounts(
        answered=4,
        reused=3,
        filtered={"cut": 1},  # type: ignore[arg-type]
        failed={"content_filter": 1, "context_length": 2, "no reason is given": 1},  # type: ignore[arg-type]
        retried=1,
        unknown=1,
        output_tokens=30 + 50 + 50,
        reasoning_tokens=10,
        usage_counted=1,
        spent_micro=100 + 20 + 5 + 1000,
    )
    assert (counts.done, counts.new) == (8, 5)


EVENTS = [
    answered(), answered(kind="reused"), failed("timeout"), event("retried"), event("unknown"), event("waiting"),
    event("answered", reading=reading(kind="filtered", reason="cut")),
]  # fmt: skip


@given(st.lists(st.sampled_from(EVENTS)))
def test_what_is_done_is_answered_or_failed(events: list[Event]) -> None:
    counts = TeachCounts()
    for one in events:
        counts.add(one)
    done = [one for one in events if one.kind in ("answered", "reused", "failed")]
    assert counts.done == len(done) == counts.answered + sum(counts.failed.values())
    assert counts.new == sum(one.kind != "reused" for one in done)
    assert counts.filtered.total() == events.count(EVENTS[-1]) <= counts.answered


def test_a_log_has_a_line_now_and_then_and_one_at_the_end() -> None:
    clock = Clock()
    made = screen(total=4, clock=clock, spent_micro=1_000_000)
    with made.shown():
        made.on_event(answered(kind="reused"))
        assert shown(made) == ""
        clock.now += 6
        made.on_event(answered())
        clock.now += 1
        made.on_event(answered())
        made.on_event(failed("timeout"))
    lines = [line for line in shown(made).splitlines() if line.startswith("teach")]
    assert lines == [
        "teach 2/4  2 answered  0 filtered  0 failed  0 retried  1.01 spent  8 tokens/s  0:12 left",
        "teach 4/4  3 answered  0 filtered  1 failed  0 retried  1.01 spent  14 tokens/s  0:00 left",
    ]


def test_a_job_that_breaks_off_still_has_its_last_line() -> None:
    made = screen(total=7300)
    try:
        with made.shown():
            made.on_event(failed("timeout"))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert shown(made).splitlines()[-1].startswith("teach 1/7300  0 answered  0 filtered  1 failed")


def test_a_long_job_has_hours_left_and_answers_of_the_journal_say_nothing_about_it() -> None:
    clock = Clock()
    made = screen(total=8000, clock=clock, width=200)
    with made.shown():
        for _ in range(700):
            made.on_event(answered(kind="reused"))
        clock.now += 10
        made.on_event(answered(kind="reused"))
        assert shown(made).endswith("time left unknown\n")
        made.on_event(answered())
        clock.now += 0.5
    assert shown(made).endswith(" 21:17:09 left\n")  # 7298 requests, 10.5 s each


def test_a_free_teacher_spends_nothing_and_nothing_is_shown_as_money() -> None:
    made = screen(priced=False)
    with made.shown():
        made.on_event(answered(cost_micro=0))
    assert "spent" not in shown(made)
    assert "spent in all" not in dict(made.facts(0))


def test_each_reason_is_said_once_in_the_servers_words() -> None:
    made = screen(width=200)
    with made.shown():
        made.on_event(failed("context_length", "[bold]8192 tokens at most", line=3))
        made.on_event(failed("context_length", "again", line=4))
        made.on_event(
            event("answered", 5, reading=reading(kind="failed", reason="refused", detail="not today"))
        )
        unknown = Decision(action="retry", reason="reset", words="closed by peer", unknown=True)
        for line in (6, 7):
            made.on_event(event("unknown", line, decision=unknown))
        made.on_event(failed("quota", ""))
    assert [line for line in shown(made).splitlines() if line.startswith("warning")] == [
        "warning line 3 failed (context_length): [bold]8192 tokens at most",
        "warning line 5 failed (refused): not today",
        "warning the outcome at line 6 is unknown (reset): closed by peer",
        "warning line 1 failed (quota): no words",
    ]


def test_another_teacher_is_an_alarm() -> None:
    made = screen(width=200)
    with made.shown():
        made.on_event(answered(1))
        for line in (2, 3):
            made.on_event(answered(line, origin=OTHER))
            made.on_event(answered(line, "origin_changed", origin=OTHER))
    assert shown(made).count("warning") == 1
    assert "warning from line 2 on another teacher answers: m-2 / house / fp_1, before m-1" in shown(made)


def test_a_server_with_a_new_fingerprint_for_each_reply_does_not_flood_the_screen() -> None:
    made = screen(width=200, total=5000)
    with made.shown():
        made.on_event(answered(1))
        for line in range(2, 2000):
            new = Origin("m-1", None, f"fp_{line}")
            made.on_event(answered(line, origin=new))
            made.on_event(answered(line, "origin_changed", origin=new))
        made.on_event(answered(3, "origin_changed", origin=Origin("m-1", None, "fp_3")))
    assert [line for line in shown(made).splitlines() if line.startswith("warning")] == [
        "warning from line 2 on another teacher answers: m-1 / fp_2, before m-1",
        "warning from line 3 on another teacher answers: m-1 / fp_3, before m-1",
        "warning from line 4 on another teacher answers: m-1 / fp_4, before m-1",
        "warning and more teachers answer: see `kdfast journal stats`",
    ]


def test_an_answer_whose_cost_nobody_says_counts_with_its_worst_case() -> None:
    counts = TeachCounts()
    counts.add(event("answered", reading=reading(kind="failed", reason="repeated_index", cost_micro=None)))
    counts.add(event("reused", reading=reading(kind="failed", reason="repeated_index", cost_micro=None)))
    assert counts.spent_micro == 1000


def test_a_wait_is_shown_until_something_comes() -> None:
    clock = Clock()
    made = screen(clock=clock, width=200)
    wait = event("waiting", decision=Decision(action="retry", reason="rate_limited", gate_s=30.0))
    with made.shown():
        clock.now += 2
        made.on_event(wait)
        clock.now += 2
        made.on_event(wait)
        made.on_event(answered())
    lines = shown(made).splitlines()
    assert ["the server asks to wait 30 s" in line for line in lines] == [True, False]


def test_the_summary_says_all() -> None:
    made = screen(total=9)
    for one in EVENTS:
        made.on_event(one)
    made.on_event(answered(reasoning_tokens=1200, usage_counted=True))
    assert made.facts(5_000_000) == [
        ("requests", "9; 4 of them are left"),
        ("answered", "4"),
        ("from the journal", "1 were answered before and not asked again"),
        ("filtered", "1: cut 1"),
        ("failed", "1: timeout 1"),
        ("retried", "1 times"),
        ("unknown outcomes", "1; each may be charged"),
        ("reasoning", "1,200 tokens were taken out"),
        ("counted by kdfast", "the server did not say the tokens of 1 answers; kdfast counted them"),
        ("spent in all", "5.00"),
    ]


def test_nothing_is_cut_on_a_terminal_of_80_columns() -> None:
    clock = Clock()
    made = screen(total=123_456, terminal=True, clock=clock, spent_micro=12_345_000_000)
    with made.shown():
        for line in range(1, 1500):
            made.on_event(answered(line))
        clock.now += 1
        words = "the prompt is longer than the model's context " * 4
        made.on_event(failed("context_length", words, line=7))
        made.on_event(event("waiting", decision=Decision(action="retry", reason="rate_limited", gate_s=30.0)))
    text = shown(made)
    assert "…" not in text
    assert "1500/123456 74950 tokens/s  1:21 left" in text
    assert "1499 answered  0 filtered  1 failed  0 retried  12345.15 spent" in text
    assert "           the server asks to wait 30 s" in text
    assert " ".join(text.split()).count(words.strip()) == 1  # wrapped between words
    console = Console(file=io.StringIO(), width=80)
    console.print(facts_table(made.facts(10**12)))
    assert max(map(len, console.file.getvalue().splitlines())) <= 80  # type: ignore[attr-defined]
