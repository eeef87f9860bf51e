"""The section of the preflight, against documents made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from made_run import EVIL, write_run

from kdfast.config import load_config
from kdfast.errors import DataError
from kdfast.page import render_page
from kdfast.page.preflight import PreflightSection, preflight_check, preflight_section
from kdfast.recipes.preflight.shown.result import Result, Row, skipped_document
from kdfast.runs.folder import RunFolder
from kdfast.runs.reading import Missing, RunFiles, read_run

STARTED = 1_700_000_000.0
WHEN = "2023-11-14 22:13 UTC"


def row(status: Any, name: str, text: str = "16 rows", **more: Any) -> Row:
    return Row(name=name, proves=f"{name} holds.", status=status, text=text, **more)


def fingerprint(folder: Path) -> str:
    return load_config(RunFolder(write_run(folder / "run")).config).fingerprint()


def document(folder: Path, *rows: Row, **more: Any) -> dict[str, Any]:
    facts = {"seconds": 41.2, "config_fingerprint": fingerprint(folder), "started_at": STARTED}
    return Result(rows=rows, kdfast_version="0.1.0", **facts | more).to_json()


def run(folder: Path, preflight: Any) -> RunFiles:
    return read_run(write_run(folder / "run", preflight=preflight))


def answer(section: PreflightSection) -> tuple[str, str]:
    check = preflight_check(section)
    assert check is not None
    assert (check.question, check.link) == ("Checked before it was paid", "preflight")
    return check.answer, check.because


PASS, WARN, FAIL, SKIP = (row(status, f"group.{status}") for status in ("pass", "warn", "fail", "skip"))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([PASS, SKIP], ("good", "1 passed, 0 warnings, 1 skipped, 0 failed")),
        ([PASS, WARN], ("look", "1 passed, 1 warning, 0 skipped, 0 failed")),
        ([PASS, WARN, FAIL, FAIL], ("bad", "1 passed, 1 warning, 0 skipped, 2 failed (group.fail)")),
        ([SKIP, SKIP], ("unknown", "no check passed: 0 passed, 0 warnings, 2 skipped, 0 failed")),
        ([], ("unknown", "no check passed: 0 passed, 0 warnings, 0 skipped, 0 failed")),
    ],
)
def test_was_all_checked_before_it_was_paid(tmp_path: Path, rows: list[Row], expected: Any) -> None:
    section = preflight_section(run(tmp_path, document(tmp_path, *rows)))
    assert section.of_this_config
    assert answer(section) == expected


@pytest.mark.parametrize("rows", [[PASS], [PASS, FAIL]])
def test_one_of_another_config_is_worth_a_look(tmp_path: Path, rows: list[Row]) -> None:
    files = run(tmp_path, document(tmp_path, *rows, config_fingerprint="ab" * 32))
    section = preflight_section(files)
    assert answer(section) == ("look", f"of another config: {section.counts}")
    assert "with another config than this run's" in Page(render_page(files)[0]).text()


def test_the_page_shows_what_failed_first_and_folds_the_rest(tmp_path: Path) -> None:
    rows = [
        row("pass", "data.read", shown=("line one", "line two")),
        row("warn", "data.leak", "1 row", remedy="remove it from `data.train`"),
        row("fail", "qat.starts", "never began", remedy="set quant.start_fraction"),
        row("skip", "teacher.endpoint", "nobody is asked"),
    ]
    more = {"stand_in": "2 layers, for 134.5 M", "notes": ("the scores are made up",)}
    inputs = {"data.train": "cd" * 32}
    files = run(tmp_path, document(tmp_path, *rows, inputs=inputs, full=True, probe=True, **more))
    section = preflight_section(files)
    assert [(one.name, one.word, one.style) for one in section.urgent] == [
        ("qat.starts", "failed", "failed"),
        ("data.leak", "warning", "inconclusive"),
    ]
    assert [one.name for one in section.quiet] == ["data.read", "teacher.endpoint"]
    assert section.quiet[0].shown == "line one\nline two"
    assert dict(section.facts) == {
        "took": "41.2 s",
        "stand-in for the student": "2 layers, for 134.5 M",
        "options": "--full --probe",
        "kdfast": "0.1.0",
        "config": fingerprint(tmp_path),
        "input: data.train": "cd" * 32,
    }
    page = Page(render_page(files)[0])
    text = page.text()
    places = [text.index(name) for name in ("qat.starts", "data.leak", "What passed, and what", "data.read")]
    assert places == sorted(places)
    assert f"{section.counts}. {WHEN}, with the config of this run." in text
    for told in ("set quant.start_fraction", "never began", "the scores are made up", "nobody is asked"):
        assert told in text
    assert {"href": "#preflight"} in page.all("a")
    assert "Not good" in text


def test_that_it_was_left_out_is_said_and_is_no_success(tmp_path: Path) -> None:
    left_out = skipped_document("kdfast teach --no-preflight", at=STARTED, config_fingerprint="ab")
    files = run(tmp_path, left_out)
    section = preflight_section(files)
    assert answer(section) == ("unknown", "left out by `kdfast teach --no-preflight`")
    text = Page(render_page(files)[0]).text()
    assert f"left it out on {WHEN}, with another config: nothing was checked" in text


def test_a_run_without_one_asks_nothing_and_says_so_with_the_config(tmp_path: Path) -> None:
    files = run(tmp_path, None)
    assert isinstance(files.preflight, Missing)
    assert preflight_check(preflight_section(files)) is None
    source, _ = render_page(files)
    assert "#preflight" not in source
    assert "Checked before it was paid" not in source
    assert "No preflight.json:" in Page(source).text()


def test_texts_of_others_can_do_nothing(tmp_path: Path) -> None:
    evil = row("fail", EVIL, EVIL, remedy=EVIL, shown=(EVIL,))
    passed = row("pass", EVIL, EVIL, shown=(EVIL,))
    more = {"stand_in": EVIL, "notes": [EVIL], "kdfast_version": EVIL, "inputs": {EVIL: EVIL}}
    files = run(tmp_path, document(tmp_path, evil, passed) | more)
    source, _ = render_page(files)
    page = Page(source)
    assert EVIL not in source
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not re.search(r"https?://|javascript:|<script", source)
    assert page.text().count("{{ 7 * 7 }}") >= 10
    files = run(tmp_path, skipped_document(EVIL, at=0.0, config_fingerprint="ab"))
    assert not {"script", "img"} & {tag for tag, _ in Page(render_page(files)[0]).elements}


def damaged(folder: Path, **changes: Any) -> dict[str, Any]:
    made = document(folder, PASS) | changes
    return {key: value for key, value in made.items() if value != "gone"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "kdfast.gate_report"}, "kind must be 'kdfast.preflight'"),
        ({"schema_version": "2.0"}, "schema_version must be '1.0'"),
        ({"rows": "gone"}, "rows is missing"),
        ({"config_fingerprint": None}, "config_fingerprint is missing"),
        ({"started_at": 1e300}, "started_at must be a time in Unix seconds"),
        ({"rows": [{"name": "a.b", "status": "perhaps"}]}, "rows.0.status must be one of"),
        ({"request": {"full": 1}}, "request.full must be true or false"),
        ({"skipped": 3}, "skipped must be a text"),
    ],
)
def test_a_damaged_document_names_file_key_and_remedy(tmp_path: Path, changes: Any, named: str) -> None:
    files = run(tmp_path, damaged(tmp_path, **changes))
    with pytest.raises(DataError, match=rf"preflight\.json: {named}.*`kdfast preflight CONFIG` again"):
        preflight_section(files)


def test_one_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"preflight\.json: not readable JSON .*preflight CONFIG` again"):
        run(tmp_path, "{")


def test_it_counts_for_when_the_page_was_written(tmp_path: Path) -> None:
    files = run(tmp_path, json.dumps(document(tmp_path, PASS)))
    assert files.written_at >= (tmp_path / "run" / "preflight.json").stat().st_mtime
