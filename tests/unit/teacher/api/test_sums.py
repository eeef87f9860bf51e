"""Sums over a journal: against a twin that adds up the exported lines."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import asked_journal
import pytest
from journals import begun, request

from kdfast.teacher.api.journal import Journal, Leases, Verdict, exported_lines
from kdfast.teacher.api.journal.owners import this_process
from kdfast.teacher.api.sums import changes, sum_up
from kdfast.teacher.api.usage import Usage


def test_sums_of_a_small_journal(path: Path) -> None:
    with asked_journal.build(path) as journal:
        found = sum_up(journal)
    assert json.loads(json.dumps(found)) == found
    counts = (
        "requests",
        "answered",
        "in_flight",
        "unknown",
        "not_sent",
        "not_final",
        "late",
        "uncosted",
        "unread",
    )
    assert [found[name] for name in counts] == [7, 4, 1, 1, 1, 1, 0, 1, 1]
    assert found["money"] == {"spent_micro": 150 + 160 + 900 + 900 + 140, "in_flight_micro": 900}
    assert [(one["kind"], one["reason"], one["share"]) for one in found["verdicts"]] == [
        ("accepted", "", 0.5),
        ("filtered", "cut", 0.25),
    ]
    assert found["tokens"] == {
        "input_tokens": 200, "cached_tokens": 60, "output_tokens": 22, "reasoning_tokens": 0,
    }  # fmt: skip
    assert (found["answers"], found["answers_with_tokens"]) == (4, 2)
    assert found["latency_ms"] == {"p50": 500, "p95": 1200}
    assert [(one["model"], one["answers"]) for one in found["teachers"]] == [("m-1", 2), ("m-2", 1)]
    assert (found["first_ms"], found["last_ms"]) == (1_764_480_000_000, 1_764_480_122_000)
    (warning,) = changes(found["teachers"])
    assert warning.startswith(
        "requests to m were answered by m-1 (2 answers, 2025-11-30 05:20:01 to 05:20:02 UTC)"
    )


def test_what_nobody_measured_is_null(journal: Journal) -> None:
    begun(journal, request(0))
    found = sum_up(journal)
    assert (found["tokens"], found["latency_ms"], found["teachers"], found["verdicts"]) == (
        None,
        None,
        [],
        [],
    )
    assert found["first_ms"] == found["last_ms"] == 1_000_000


def test_an_empty_journal(journal: Journal) -> None:
    found = sum_up(journal)
    assert (found["requests"], found["first_ms"], found["last_ms"]) == (0, None, None)


def test_in_flight_of_a_process_that_ended(path: Path) -> None:
    machine, number, _, name = this_process().split("/")
    for owner, ended in ((this_process(), 0), (f"{machine}/{number}/1/{name}", 1)):
        made = path.with_name(str(ended))
        with Journal(made, leases=Leases(owner=owner)) as journal:
            begun(journal, request(0))
            assert sum_up(journal)["in_flight_of_ended_processes"] == ended


@pytest.mark.parametrize("seed", range(3))
def test_against_a_twin_that_reads_the_export(journal: Journal, seed: int) -> None:
    draw = random.Random(seed)
    for number in range(40):
        usage = {"prompt_tokens": draw.randint(1, 99), "completion_tokens": draw.randint(0, 9)}
        model = draw.choice(["m-1", "m-2", "m-3"])
        answer = asked_journal.answered(
            journal, number, asked_journal.reply(model, usage=usage), draw.randint(0, 9999)
        )
        with journal.together():
            counted = asdict(
                Usage(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"])
            )
            journal.set_cost(answer, number, draw.choice([None, usage, counted]))
            journal.set_verdict(
                answer, Verdict(draw.choice(["accepted", "filtered"]), draw.choice(["", "cut"]))
            )
    found, lines = sum_up(journal), [json.loads(line) for line in exported_lines(journal)]
    latencies = sorted(line["latency_ms"] for line in lines)
    assert found["latency_ms"] == {"p50": latencies[19], "p95": latencies[37]}
    assert found["tokens"]["input_tokens"] == sum(
        line["response"]["usage"]["prompt_tokens"] for line in lines
    )
    assert found["tokens"]["output_tokens"] == sum(
        line["response"]["usage"]["completion_tokens"] for line in lines
    )
    verdicts = Counter((line["verdict"]["kind"], line["verdict"]["reason"]) for line in lines)
    assert {(one["kind"], one["reason"]): one["count"] for one in found["verdicts"]} == verdicts
    models = Counter(line["response"]["model"] for line in lines)
    assert {one["model"]: one["answers"] for one in found["teachers"]} == models


@pytest.mark.parametrize(
    ("stored", "tokens"),
    [
        ({"input_tokens": 7, "output_tokens": 2, "cached_tokens": 3, "reasoning_tokens": 1}, [7, 2, 3, 1]),
        ({"prompt_tokens": 5, "completion_tokens": 1}, [5, 1, 0, 0]),
        ({"input_tokens": None, "cached_tokens": 3}, [100, 10, 0, 0]),
        ({"input_tokens": "7", "output_tokens": 2, "cached_tokens": 3}, [100, 10, 0, 0]),
        ({"input_tokens": 1, "output_tokens": 2, "cached_tokens": 3}, [100, 10, 0, 0]),
        ({"total_tokens": 90}, [100, 10, 0, 0]),
        (None, [100, 10, 0, 0]),
    ],
)
def test_a_count_that_cannot_be_right_gives_way_to_the_servers(
    journal: Journal, stored: dict, tokens: list
) -> None:
    journal.set_cost(asked_journal.answered(journal, 0, asked_journal.reply()), 1, stored)
    assert list(sum_up(journal)["tokens"].values()) == tokens


# Changes of the teacher


def _teacher(**names: object) -> dict:
    known = {"endpoint": "e", "asked": "m", "model": None, "provider": None, "system_fingerprint": None}
    return {**known, "answers": 1, "first_ms": 0, "last_ms": 0, **names}


@pytest.mark.parametrize(
    ("teachers", "warnings"),
    [
        ([], 0),
        ([_teacher(model="a")], 0),
        ([_teacher(model="a"), _teacher(model="b")], 1),
        ([_teacher(model="a", provider="x"), _teacher(model="a", provider="y")], 1),
        ([_teacher(model="a", system_fingerprint="x"), _teacher(model="a", system_fingerprint="y")], 1),
        ([_teacher(model="a", system_fingerprint="x"), _teacher(model="a")], 0),
        ([_teacher(model="a"), _teacher(asked="n", model="b")], 0),
        ([_teacher(model="a"), _teacher(endpoint="f", model="b")], 0),
    ],
)
def test_a_change_is_another_teacher_for_the_same_request(teachers: list, warnings: int) -> None:
    assert len(changes(teachers)) == warnings


def test_many_teachers_are_not_all_named() -> None:
    (warning,) = changes([_teacher(model=f"m-{number}") for number in range(9)])
    assert ", and 4 more: these are" in warning
