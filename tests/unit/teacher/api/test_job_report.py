"""What a job counts, and that it does not depend on the order of what happens."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from teach_jobs import KEY, asked, settings

from kdfast.teacher.api.job_report import Event, EventKind, Tally
from kdfast.teacher.api.journal import Verdict
from kdfast.teacher.api.reply import Origin
from kdfast.teacher.api.retry import Decision
from kdfast.teacher.api.usage import Usage
from kdfast.teacher.reading import Reading

ONE = asked("http://localhost/v1", 0)


def reading(model: str, kind: str = "accepted") -> Reading:
    return Reading(
        verdict=Verdict(kind), usage=Usage(input_tokens=1, output_tokens=1), origin=Origin(model=model)
    )


def tell(tally: Tally, kind: EventKind, model: str) -> None:
    if kind in ("reused", "answered"):
        got = reading(model)
        tally.tell(kind, ONE, verdict=got.verdict, reading=got, is_old=kind == "reused")
    else:
        tally.tell(kind, ONE, decision=Decision(action="give_up", reason=model))


happenings = st.lists(
    st.tuples(st.sampled_from(["reused", "answered", "failed", "unknown", "retried"]), st.sampled_from("abc"))
)


@given(happenings)
def test_the_result_does_not_depend_on_the_order(happened: list[tuple[EventKind, str]]) -> None:
    results = []
    for _ in range(2):
        tally = Tally(lambda _: None)
        for kind, model in happened:
            tell(tally, kind, model)
        results.append(tally.result(len(happened) + 3, "done", None))
        happened = sorted(happened, key=repr)
    assert results[0] == results[1]
    assert repr(results[0]) == repr(results[1])
    settled = sum(kind in ("reused", "answered", "failed") for kind, _ in happened)
    assert results[0].left == len(happened) + 3 - settled
    assert sum(results[0].failures.values()) == results[0].failed


def test_another_origin_is_told_once_and_not_of_old_answers() -> None:
    events: list[Event] = []
    tally = Tally(events.append)
    happened: list[tuple[EventKind, str]] = [
        ("reused", "a"),
        ("reused", "b"),
        ("answered", "b"),
        ("answered", "c"),
    ]
    for kind, model in [*happened, ("answered", "c"), ("answered", "a")]:
        tell(tally, kind, model)
    changes = [event for event in events if event.kind == "origin_changed"]
    assert [event.reading and event.reading.origin.model for event in changes] == ["c"]
    assert tally.origins == {Origin("a"): 2, Origin("b"): 2, Origin("c"): 2}


def test_settings_do_not_show_secrets() -> None:
    limits = settings(secrets=(KEY,))
    assert limits.secrets == (KEY,)
    assert KEY not in repr(limits)
    assert replace(limits, budget_micro=1).secrets == (KEY,)
