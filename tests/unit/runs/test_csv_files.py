"""CSV beside JSON: every value is there, any text comes back, and no spreadsheet runs what a model wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import AFTER, BEFORE, EVIL, answer, evaluation, metrics

from kdfast.errors import DataError
from kdfast.runs.csv_files import FORMULA_STARTS, csv_path, write_evaluation_csv, write_metrics_csv
from kdfast.runs.metrics import MetricsLog


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, each with as many cells as the heading has."""
    with path.open(encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file, strict=True)
    assert len(set(heading)) == len(heading)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def text_of(cell: str) -> str:
    """The text that a cell stands for."""
    return cell.removeprefix("'")


def test_names_of_files() -> None:
    assert csv_path(Path("a.b/evaluation.json")) == Path("a.b/evaluation.csv")
    assert csv_path(Path("a.b/evaluation")) == Path("a.b/evaluation.csv")
    assert csv_path(Path("v1.0")) != csv_path(Path("v1.1"))


# Metrics


def test_metrics_have_a_row_a_line_and_a_column_a_name(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write("validation", 0, {"loss": 1.5, "kl": 3e-05})
        log.write("train", 1, {"loss": 0.1 + 0.2, "grad_norm": float("nan")})
        log.write("speed", 1, {"tps.p50": -0.5}, {"export": False, "absent": {"itl_ms": 'no "answer", none'}})
    assert write_metrics_csv(path) == tmp_path / "metrics.csv"
    raw = (tmp_path / "metrics.csv").read_bytes()
    assert raw.splitlines()[0] == b"step,kind,loss,kl,not_finite,export,absent,tps.p50"
    assert raw.count(b"\r\n") == raw.count(b"\n") == 4
    assert list(read(tmp_path / "metrics.csv")[0].values()) == [
        "0",
        "validation",
        "1.5",
        "3e-05",
        "",
        "",
        "",
        "",
    ]
    _, train, speed = read(tmp_path / "metrics.csv")
    assert float(train["loss"]) == 0.1 + 0.2
    assert train["not_finite"] == '["grad_norm"]'
    assert (speed["export"], speed["tps.p50"], speed["loss"]) == ("false", "-0.5", "")
    assert json.loads(speed["absent"]) == {"itl_ms": 'no "answer", none'}


def test_every_number_of_a_run_is_there(tmp_path: Path) -> None:
    lines = metrics()
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = read(write_metrics_csv(path))
    assert len(found) == len(lines)
    for line, row in zip(lines, found, strict=True):
        assert {name for name, cell in row.items() if cell} == set(line)
        numbers = {name: value for name, value in line.items() if type(value) in (int, float)}
        assert {name: float(row[name]) for name in numbers} == numbers


def test_a_run_that_is_still_going(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "kind": "train"}\n{"step": 2, "ki', encoding="utf-8")
    assert [row["step"] for row in read(write_metrics_csv(path))] == ["1"]
    path.write_text('{"step": 1, "kind": "train"}\n{"step": 2, "kind": "train"}', encoding="utf-8")
    assert [row["step"] for row in read(write_metrics_csv(path))] == ["1", "2"]
    path.write_text("", encoding="utf-8")
    assert write_metrics_csv(path).read_bytes() == b"step,kind\r\n"


@pytest.mark.parametrize("line", [b'{"step": 1', b"[1]", b"\xff", b'{"loss": NaN}'])
def test_a_damaged_line_is_named_and_the_former_file_stays(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "kind": "train"}\n')
    before = write_metrics_csv(path).read_bytes()
    path.write_bytes(b'{"step": 1, "kind": "train"}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: "):
        write_metrics_csv(path)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.csv", "metrics.jsonl"]


def test_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_metrics_csv(tmp_path / "metrics.jsonl")


# Evaluations


def rows_of(tmp_path: Path, document: dict[str, Any]) -> list[dict[str, str]]:
    return read(write_evaluation_csv(tmp_path / "evaluation_after.json", document))


def test_one_row_an_answer_with_its_scores(tmp_path: Path) -> None:
    answers = [one | {"line": 7, "category": "simple"} for one in AFTER]
    found = rows_of(tmp_path, evaluation(8, answers))
    assert list(found[0])[:4] == ["prompt", "mode", "line", "category"]
    assert list(found[0])[-2:] == ["reference_text", "text"]
    assert [row["prompt"] for row in found] == ["1", "2", "3"]
    assert {row["mode"] for row in found} == {"free"}
    assert [row["exact_match"] for row in found] == ["true", "false", "false"]
    assert [row["mismatch_reason"] for row in found] == ["", "value", ""]
    assert found[1]["mismatch_detail"] == "city: 'Rome' is none of ['Paris']"
    assert found[0]["text"] == AFTER[0]["text"]  # it has line breaks and quotes
    assert "\n" in found[0]["text"]
    assert (found[0]["line"], found[0]["category"], found[0]["tokens"]) == (
        "7",
        "simple",
        str(AFTER[0]["tokens"]),
    )


def test_both_modes(tmp_path: Path) -> None:
    document = evaluation(8, BEFORE) | {"constrained": evaluation(8, AFTER)}
    found = rows_of(tmp_path, document)
    assert [(row["prompt"], row["mode"]) for row in found] == [
        (number, mode) for mode in ("free", "constrained") for number in "123"
    ]
    assert found[4]["text"] == AFTER[1]["text"]


def test_an_evaluation_without_answers(tmp_path: Path) -> None:
    assert rows_of(tmp_path, evaluation(0, [])) == []
    for damaged in ({}, {"answers": 3}, {"answers": [{"score": 1}]}, {"answers": ["a"]}):
        with pytest.raises(DataError, match=r"evaluation_after\.json: answers"):
            rows_of(tmp_path, damaged)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
        ("- one\n- two", "'- one\n- two"),
        ("+1", "'+1"),
        ("@sum(1)", "'@sum(1)"),
        ("\t=1", "'\t=1"),
        ("＝1", "'＝1"),  # noqa: RUF001
        ("'quoted'", "''quoted'"),
        ("a = b", "a = b"),
        (" =1", " =1"),
        ("", ""),
        ("half \ud800 pair", "half ? pair"),
        (EVIL, EVIL),
    ],
)
def test_a_text_is_no_formula(tmp_path: Path, text: str, cell: str) -> None:
    assert rows_of(tmp_path, evaluation(8, [answer(text)]))[0]["text"] == cell


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    assert rows_of(tmp_path, evaluation(8, [answer("a") | {"margin": -0.5}]))[0]["margin"] == "-0.5"


@given(text=st.text())
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("csv")
    cell = rows_of(folder, evaluation(8, [answer(text)]))[0]["text"]
    assert text_of(cell) == text
    assert not cell.startswith(FORMULA_STARTS)
