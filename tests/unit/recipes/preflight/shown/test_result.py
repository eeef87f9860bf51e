"""The result of a preflight: what it counts, its exit code, and its document, there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdfast.errors import DataError
from kdfast.exit_codes import DONE, PREFLIGHT_FAILED
from kdfast.files import write_document
from kdfast.recipes.preflight.check import Check, Status, passed, warned
from kdfast.recipes.preflight.shown.result import (
    Result,
    Row,
    Skipped,
    read_preflight,
    readable,
    skipped_document,
)

CHECK = Check(name="data.leak", proves="No held-out record is trained on.", look=lambda: passed("none"))


def row(status: Status, name: str = "data.leak", **more: Any) -> Row:
    return Row(name=name, proves="It holds.", status=status, text=f"seen by {name}", **more)


def result(*rows: Row, **more: Any) -> Result:
    facts = {"seconds": 41.25, "config_fingerprint": "ab" * 32, "started_at": 1_700_000_000.5}
    return Result(rows=rows, kdfast_version="0.1.0", **facts | more)


@pytest.mark.parametrize(
    ("statuses", "strict", "code"),
    [
        (["pass"], False, DONE),
        (["pass", "warn", "skip"], False, DONE),
        (["pass", "skip"], True, DONE),
        (["pass", "warn"], True, PREFLIGHT_FAILED),
        (["pass", "fail"], False, PREFLIGHT_FAILED),
        (["skip", "warn"], False, PREFLIGHT_FAILED),  # nothing is proven
        ([], False, PREFLIGHT_FAILED),
    ],
)
def test_the_exit_code(statuses: list[Status], strict: bool, code: int) -> None:
    assert result(*map(row, statuses), strict=strict).exit_code == code


def test_strict_makes_a_warning_fail_and_says_why() -> None:
    finding = warned("1 row is in both files", "remove it from data.train", "line 7")
    lenient, strict = (Row.of(CHECK, finding, 0.25, strict=strict) for strict in (False, True))
    assert (lenient.status, lenient.text, lenient.remedy) == ("warn", finding.text, finding.remedy)
    assert (lenient.name, lenient.proves, lenient.shown, lenient.seconds) == (
        CHECK.name,
        CHECK.proves,
        ("line 7",),
        0.25,
    )
    assert (strict.status, strict.text) == (
        "fail",
        "a warning, and --strict lets none pass: 1 row is in both files",
    )
    assert strict.remedy == finding.remedy
    assert result(lenient, row("pass"), strict=True).failed == (strict,)
    assert Row.of(CHECK, passed("none"), 0.1, strict=True).status == "pass"


def test_the_counts_name_every_status() -> None:
    made = result(row("pass"), row("fail", "qat.recovery"), row("pass"), row("skip"))
    assert made.counts == {"pass": 2, "warn": 0, "skip": 1, "fail": 1}
    assert [one.name for one in made.failed] == ["qat.recovery"]


def test_texts_that_others_wrote_can_be_printed_and_stored() -> None:
    made = row(
        "pass", "data.a\x1b]0;b", remedy="\x9b2J\x00", shown=("a\rb\ud800\uffff", "tab\tand\nbreak ü 🦀")
    )
    assert made.name == r"data.a\x1b]0;b"
    assert made.remedy == r"\x9b2J\x00"
    assert made.shown == (r"a\rb\ud800\uffff", "tab\tand\nbreak ü 🦀")
    assert readable(readable("\x1b")) == r"\x1b"


def test_the_document_there_and_back(tmp_path: Path) -> None:
    rows = (
        row("pass", shown=("<tool_call>", "[bold]")),
        row("fail", "teacher.key", remedy="set api.key_env", seconds=0.5),
    )
    made = result(
        *rows,
        stand_in="2 layers, 0.4 M parameters, for 134.5 M",
        notes=("the teacher's scores are made up",),
        inputs={"data.train": "cd" * 32},
        full=True,
        probe=True,
    )
    write_document(tmp_path / "preflight.json", made.to_json())
    assert read_preflight(tmp_path / "preflight.json") == made
    document = json.loads((tmp_path / "preflight.json").read_text(encoding="utf-8"))
    assert (document["schema_version"], document["kind"]) == ("1.0", "kdfast.preflight")
    assert (document["exit_code"], document["counts"]["fail"]) == (4, 1)
    assert document["request"] == {"full": True, "probe": True, "strict": False}


def test_the_document_of_a_strict_result_keeps_its_words() -> None:
    made = result(row("warn"), row("pass"), strict=True)
    assert Result.from_json(made.to_json()) == made


def test_that_there_was_none_there_and_back(tmp_path: Path) -> None:
    document = skipped_document("kdfast teach --no-preflight", at=12.5, config_fingerprint="ab")
    write_document(tmp_path / "preflight.json", document)
    read = read_preflight(tmp_path / "preflight.json")
    assert read == Skipped(command="kdfast teach --no-preflight", at=12.5, config_fingerprint="ab")


WHOLE = result(row("pass")).to_json()
ROW = WHOLE["rows"][0]


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("{", "not a readable preflight result"),
        ([], "must be an object, got list"),
        (WHOLE | {"kind": "kdfast.gate_report"}, "kind must be 'kdfast.preflight'"),
        (WHOLE | {"schema_version": "2.0"}, "schema_version must be '1.0'"),
        ({key: WHOLE[key] for key in WHOLE if key != "rows"}, "rows is missing"),
        (WHOLE | {"seconds": None}, "seconds is missing"),
        (WHOLE | {"rows": {}}, "rows must be a list"),
        (WHOLE | {"rows": [ROW | {"status": "good"}]}, "rows.0.status must be one of pass, warn, skip, fail"),
        (WHOLE | {"rows": [ROW | {"shown": [3]}]}, "rows.0.shown.0 must be a text"),
        (WHOLE | {"request": {"full": 1, "probe": False, "strict": False}}, "request.full must be true or"),
        (WHOLE | {"skipped": None}, "skipped is missing"),
        (WHOLE | {"skipped": "kdfast teach --no-preflight"}, "at is missing"),
    ],
)
def test_a_damaged_document_names_the_place_and_the_remedy(tmp_path: Path, document: Any, named: str) -> None:
    path = tmp_path / "preflight.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=rf"preflight\.json: .*{named}.*run `kdfast preflight CONFIG` again"):
        read_preflight(path)
