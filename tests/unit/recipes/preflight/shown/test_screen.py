"""What is seen of a preflight: rows as they are found, nothing cut at 80 columns, and what to do at the end."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from kdfast.config import Config
from kdfast.config.loader import config_from_dict
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import PreflightRequest
from kdfast.recipes.preflight.shown.result import Result, Row
from kdfast.recipes.preflight.shown.screen import MOST_SHOWN, PreflightScreen, print_list, rows_table
from kdfast.recipes.preflight.shown.summary import counts_text, next_commands


def check(name: str, proves: str = "It holds [bold]for[/bold] all rows.") -> Check:
    return Check(name=name, proves=proves, look=lambda: passed("yes"))


ASKED = {"prompts": "p.jsonl", "out": "t.jsonl"}


def config(**teacher: Any) -> Config:
    values: dict[str, dict[str, Any]] = {
        "arch": {"init": "m"},
        "data": {"train": "t.jsonl", "tokenizer": "m", "shapes": [64]},
        "io": {"run_dir": "r"},
        "teacher": teacher,
    }
    if teacher.get("kind") == "api":
        values["api"] = {"base_url": "http://localhost:1/v1", "model": "m"}
    return config_from_dict(values)


FOUND: list[tuple[str, Finding]] = [
    ("data.read", passed("96 rows of [red]train.jsonl[/red]")),
    ("data.no_call_rows", warned("2 of 96 rows need no call", "add records whose right answer is no call")),
    ("learning.four_times_one_equals_one_times_four", failed("0.412 against 0.433", "look at kd.kl_weight")),
    ("teacher.endpoint", skipped("teacher.kind is 'local': nobody is asked")),
]


def rows() -> list[Row]:
    return [Row.of(check(name), finding, seconds=0.25) for name, finding in FOUND]


def result(*found: Row, **more: Any) -> Result:
    facts = {"seconds": 41.2, "config_fingerprint": "ab", "started_at": 0.0, "kdfast_version": "0.1"}
    return Result(rows=found, **facts | more)


def played(console: Console, request: PreflightRequest | None = None, **more: Any) -> str:
    with PreflightScreen(config(), request, console=console) as screen:
        group = ""
        for row in rows():
            if row.group != group:
                screen.begin(group := row.group)
            screen.looking(check(row.name))
            screen.found(row)
    screen.end(result(*rows(), **more), [Path("runs/[a]/preflight.json")])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def log(width: int) -> Console:
    return Console(file=io.StringIO(), width=width)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_log_has_a_table_a_group_and_no_line_is_wider_than_the_screen(width: int) -> None:
    shown = played(log(width))
    tables = shown.split("2 passed" if "2 passed" in shown else "1 passed")[0]
    assert max(map(len, tables.splitlines())) <= width
    lines = [line.split()[0] for line in tables.splitlines() if line.strip()]
    for heading in ("data", "learning", "teacher"):
        assert lines.count(heading) == 1
    for status in ("PASS", "WARN", "FAIL", "SKIP"):
        assert lines.count(status) == 1
    for text in ("[red]train.jsonl", "of 96", "0.433", "0.2 s", "remedy: add"):
        assert text in words(tables)


def test_on_a_pipe_a_group_is_printed_when_it_ends() -> None:
    console = log(80)
    assert isinstance(console.file, io.StringIO)
    first, second = rows()[:2]
    with PreflightScreen(config(), console=console) as screen:
        screen.begin("data")
        screen.found(first)
        assert console.file.getvalue() == ""
        screen.begin("learning")
        assert "96 rows" in console.file.getvalue()
        screen.found(second)
        assert "need no call" not in console.file.getvalue()
    assert "need no call" in console.file.getvalue()  # also where an error ends the block early


def test_a_long_name_is_broken_after_an_underscore() -> None:
    console = log(80)
    console.print(rows_table([rows()[2]], console))
    assert isinstance(console.file, io.StringIO)
    parts = [line[6:28].strip() for line in console.file.getvalue().splitlines()[:2]]
    assert parts == ["four_times_one_equals_", "one_times_four"]


@pytest.mark.parametrize(("count", "lines"), [(3, 3), (12, 12), (13, 12), (40, 12)])
def test_lines_to_look_at_are_few(count: int, lines: int) -> None:
    console = log(80)
    shown = tuple(f"[row {number}]" for number in range(count))
    console.print(rows_table([Row.of(check("batch.spans"), passed("16 rows", *shown), 0.1)], console))
    assert isinstance(console.file, io.StringIO)
    below = console.file.getvalue().rstrip().splitlines()[1:]
    assert len(below) == lines <= MOST_SHOWN
    assert below[0].rstrip() == "      [row 0]"
    left = count - lines + 1
    assert (
        below[-1]
        .rstrip()
        .endswith(f"[row {count - 1}]" if count <= 12 else f"... {left} more lines are in the JSON")
    )


def test_one_long_line_to_look_at_counts_as_the_lines_that_it_takes() -> None:
    console = log(80)
    console.print(rows_table([Row.of(check("batch.spans"), passed("16 rows", "x" * 5000), 0.1)], console))
    assert isinstance(console.file, io.StringIO)
    below = console.file.getvalue().rstrip().splitlines()[1:]
    assert len(below) == MOST_SHOWN
    assert "more lines are in the JSON" in below[-1]


def test_a_terminal_shows_what_is_looked_at_and_each_row_at_once() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, _environ={})
    assert isinstance(console.file, io.StringIO)
    first = rows()[0]
    with PreflightScreen(config(), console=console) as screen:
        screen.begin("data")
        screen.looking(check(first.name))
        assert "data.read 0 s" in plain(console)
        screen.found(first)
        assert "PASS  read" in plain(console)
        assert "data.read" not in console.file.getvalue().partition("PASS")[2]  # no longer looked at
    assert "\x1b[?25h" in console.file.getvalue()  # the cursor is back


def plain(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return Text.from_ansi(console.file.getvalue()).plain


def test_what_checks_print_is_not_mixed_in_and_the_screen_keeps_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PreflightScreen(config()) as screen, contextlib.redirect_stdout(io.StringIO()) as caught:
        screen.begin("data")
        print("said by a check")
        screen.found(rows()[0])
    assert "said by a check" in caught.getvalue()
    printed = capsys.readouterr().out
    assert "96 rows" in printed
    assert "said by a check" not in printed
    assert screen.console.file is not caught
    assert sys.stdout is not caught


def test_the_end_says_counts_stand_in_failures_files_and_what_is_next() -> None:
    request = PreflightRequest(again="kdfast preflight my.yaml --strict")
    shown = played(log(80), request, stand_in="2 layers, for 134.5 M", notes=("the scores are [made] up",))
    end = shown[shown.index("1 passed") :].splitlines()
    assert end == [
        "1 passed, 1 warning, 1 skipped, 1 failed in 41 s",
        "the small run trained a stand-in for the student: 2 layers, for 134.5 M; --full takes the student itself",
        "the scores are [made] up",
        "FAIL  learning.four_times_one_equals_one_times_four: 0.412 against 0.433",
        "      remedy: look at kd.kl_weight",
        "result  runs/[a]/preflight.json",
        "next    mend what failed, then: kdfast preflight my.yaml --strict",
    ]


def test_one_that_passed_names_the_next_commands() -> None:
    console = log(80)
    request = PreflightRequest(again="kdfast preflight a.yaml train.seed=1 --strict --json b.json")
    with PreflightScreen(config(kind="api", **ASKED), request, console=console) as screen:
        screen.end(result(rows()[0]))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().strip().splitlines() == [
        "1 passed, 0 warnings, 0 skipped, 0 failed in 41 s",
        "next    kdfast teach a.yaml train.seed=1 --dry-run",
        "then    kdfast teach a.yaml train.seed=1 --pilot 20",
    ]


def test_one_in_which_nothing_passed_is_no_success() -> None:
    console = log(80)
    with PreflightScreen(config(), console=console) as screen:
        screen.end(result(rows()[3]))
    assert isinstance(console.file, io.StringIO)
    assert "no check passed, so nothing is proven" in console.file.getvalue()
    assert "kdfast-train" not in console.file.getvalue()


def test_what_a_user_copies_is_not_broken_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=40, force_terminal=True, no_color=True, _environ={})
    path = Path("runs") / ("a" * 60) / "preflight.json"
    with PreflightScreen(config(), console=console) as screen:
        screen.end(result(rows()[0]), [path])
    assert str(path) in plain(console)


def test_quick_ones_say_tenths() -> None:
    assert counts_text(result(seconds=0.44)).endswith("in 0.4 s")


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ({}, ["kdfast-train C"]),
        ({"model": "m", "store": "s"}, ["kdfast teach C"]),
        ({"model": "m", "live": True}, ["kdfast-train C"]),
        ({"model": "m", "store": "s", **ASKED}, ["kdfast teach C"]),
        ({"kind": "api", **ASKED}, ["kdfast teach C --dry-run", "kdfast teach C --pilot 20"]),
    ],
)
def test_the_next_commands(teacher: dict[str, Any], expected: list[str]) -> None:
    assert list(next_commands(config(**teacher), "kdfast preflight C")) == expected


def test_words_with_blanks_stay_quoted_and_options_stay_behind() -> None:
    again = (
        "kdfast preflight 'my runs/a.yaml' 'data.shapes=[64, 128]' --full --probe --strict --json 'o ut.json'"
    )
    assert next_commands(config(), again) == ("kdfast-train 'my runs/a.yaml' 'data.shapes=[64, 128]'",)


def test_no_command_comes_after_one_that_goes_on_by_itself() -> None:
    assert next_commands(config(), "kdfast-train C --preflight") == ()
    assert next_commands(config(kind="api", **ASKED), "kdfast teach C") == ()


def listed(width: int) -> Iterator[str]:
    console = log(width)
    print_list(console, [check("data.read"), check("qat.starts"), check("data.leak", "No row leaks.")])
    assert isinstance(console.file, io.StringIO)
    return map(str.rstrip, console.file.getvalue().splitlines())


def test_the_list_names_every_check_by_group() -> None:
    assert list(listed(80)) == [
        "",
        "data",
        "data.read  It holds [bold]for[/bold] all rows.",
        "data.leak  No row leaks.",
        "",
        "qat",
        "qat.starts  It holds [bold]for[/bold] all rows.",
    ]
