"""Tables of a journal: nothing is cut at 80 columns, and nothing that a server wrote steers the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from kdfast.teacher.api.journal_tables import one_line, pretty, requests_table, sums_table


def _printed(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, printed.splitlines())) <= width
    return printed


def _row(**parts: Any) -> dict[str, Any]:
    row = {
        "request": "0123456789ab" + "c" * 52, "order": 3, "model": "m", "question": "Why?", "status": 200,
        "attempts": [{"status": 200, "state": "answered", "reason": ""}], "latency_ms": 1234,
        "verdict": {"kind": "accepted", "reason": ""}, "cost_micro": 150, "cost_is_known": True,
    }  # fmt: skip
    return {**row, **parts}


def test_a_request_in_a_row() -> None:
    printed = _printed(requests_table([_row()]))
    assert "Requests to m" in printed
    assert printed.splitlines()[-2].split() == [
        "3",
        "0123456789ab",
        "Why?",
        "200",
        "accepted",
        "0.000150",
        "1.2",
    ]


def test_requests_to_several_models_name_them() -> None:
    printed = _printed(requests_table([_row(), _row(model="house/another"), _row(model=None)]))
    assert "request, model" in printed
    assert "house/anothe" in printed


@pytest.mark.parametrize("width", [80, 120])
def test_long_cells_are_folded_not_cut(width: int) -> None:
    tries = [{"status": 429, "state": "not_final", "reason": ""}] * 7
    long = _row(
        order=1_234_567,
        model="a" * 30 + "Z",
        attempts=tries,
        cost_is_known=False,
        cost_micro=900,
        latency_ms=123_456,
        verdict={"kind": "filtered", "reason": "q" * 28 + "Y"},
    )
    printed = _printed(requests_table([long, _row()]), width)
    for piece in ("1234567", "<=0.000900", "123.5", "Z", "Y", "4 more", "tries", "cost"):
        assert piece in printed, piece
    assert "…" not in printed


def test_an_attempt_without_an_answer_says_why() -> None:
    lost = {"status": None, "state": "not_sent", "reason": "no connection"}
    printed = _printed(requests_table([_row(status=None, attempts=[lost], verdict=None, latency_ms=None)]))
    assert printed.splitlines()[-2].split()[3:] == ["not", "sent", "no", "connection", "0.000150", "-"]


def test_markup_and_escapes_are_texts() -> None:
    printed = _printed(requests_table([_row(question="[red]\x1b[31mWhy", model="[bold]m")]), 120)
    assert "[red] [31mWhy" in printed
    assert "Requests to [bold]m" in printed
    assert "\x1b" not in printed


SUMS: dict[str, Any] = {
    "requests": 4000, "answered": 3000, "in_flight": 2, "in_flight_of_ended_processes": 1, "unknown": 3,
    "not_sent": 4, "not_final": 5, "late": 6, "uncosted": 7, "unread": 300,
    "verdicts": [{"kind": "filtered", "reason": "cut", "count": 2700, "share": 0.9}],
    "money": {"spent_micro": 12_345_678, "in_flight_micro": 1500}, "answers": 3000, "answers_with_tokens": 2990,
    "tokens": {"input_tokens": 1_234_567, "cached_tokens": 0, "output_tokens": 89, "reasoning_tokens": 7},
    "latency_ms": {"p50": 812, "p95": 2345},
}  # fmt: skip


def test_sums_with_shares() -> None:
    lines = [" ".join(line.split()) for line in _printed(sums_table(SUMS, "a.db")).splitlines()]
    for line in (
        "a.db", "requests 4,000", "answered 3,000 75.0 %", "filtered: cut 2,700 90.0 %", "not read 300 10.0 %",
        "attempts in flight 2", "of processes that ended 1", "attempts whose outcome is unknown 3", "money spent 12.35",
        "responses at their worst case 7", "money in flight, at most 0.0015", "tokens of prompts 1,234,567",
        "of reasoning 7", "answers without a count of tokens 10", "seconds to an answer, p95 2.3",
    ):  # fmt: skip
        assert line in lines, line
    assert not any("cache" in line for line in lines)


def test_sums_of_an_empty_journal() -> None:
    empty = dict.fromkeys(SUMS, 0) | {"verdicts": [], "tokens": None, "latency_ms": None}
    empty |= {"money": {"spent_micro": 0, "in_flight_micro": 0}}
    lines = [" ".join(line.split()) for line in _printed(sums_table(empty, "a.db")).splitlines()]
    assert "answered 0" in lines
    assert "money spent 0.00" in lines
    assert not any("tokens" in line or "%" in line for line in lines)


def test_texts_that_a_server_wrote() -> None:
    assert one_line("a\u202eb\nc\td" + "e" * 60) == "a b c d" + "e" * 30 + "..."
    assert pretty("a\tb\x1b[31m\nc\ud83d") == "a   b\\u001b[31m\nc\\ud83d"
    assert pretty({"b": [1, None], "a": "\x9b"}) == '{\n  "b": [\n    1,\n    null\n  ],\n  "a": "\\u009b"\n}'
