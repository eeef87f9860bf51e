"""`kdfast report`: one page that stands alone, safe whatever a model wrote, and clear about what is damaged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from made_run import AFTER, BEFORE, EVIL, answer, config, evaluation, gate, gates, metrics, speed, write_run

from kdfast.cli import main

SECTIONS = ("losses", "calls", "speed", "gates", "shapes", "answers", "settings")
LINE = '{"step": 1, "kind": "train"}\n'
FILES = ("metrics", "evaluation_before", "evaluation_after", "speed", "gates")


def report(folder: Path, **files: Any) -> Page:
    run = write_run(folder / "run", **files)
    assert main(["report", str(run)]) == 0
    return Page((run / "report.html").read_text(encoding="utf-8"))


def fails(capsys: pytest.CaptureFixture[str], *arguments: Path | str, code: int = 2) -> str:
    assert main(["report", *map(str, arguments)]) == code
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    return error


# The page


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = report(tmp_path)
    assert [section["id"] for section in page.all("section") if "id" in section] == list(SECTIONS)
    assert {link["href"] for link in page.all("a")} == {f"#{name}" for name in SECTIONS}
    shown = capsys.readouterr().out
    assert str(tmp_path / "run" / "report.html") in shown
    assert "Not good: 4 good, 1 worth a look, 1 bad" in shown
    assert "Not good" in page.text()


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = report(tmp_path)
    source = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    for _, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")
        ]
    assert not re.search(r"https?://|url\(|@import|javascript:", source)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source


def test_what_a_model_wrote_is_text_and_nothing_else(tmp_path: Path) -> None:
    evil = answer(EVIL) | {"reference_text": EVIL}
    evil["score"]["mismatch"] = {"reason": "value", "detail": EVIL}
    page = report(
        tmp_path,
        evaluation_before=evaluation(0, [evil, *BEFORE[1:]]),
        evaluation_after=evaluation(8, [evil, *AFTER[1:]]) | {"categories": {EVIL: _part(), "b": _part()}},
        gates=gates() | {"results": [gate(EVIL, "failed", EVIL, unit=EVIL, value=1.0)]},
        speed=speed() | {"hardware": {"key": EVIL, "versions": {EVIL: EVIL}}, "absent": {EVIL: EVIL}},
        metrics=[line | {EVIL: 1.0} if line["kind"] == "train" else line for line in metrics()],
        config=config(data__train=EVIL.replace("\n", "")),
    )
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    texts = [text for tag, text in page.texts if tag == "pre"]
    assert texts.count(" ".join(EVIL.split())) == 3  # the right answer, before, after: word for word
    assert "{{ 7 * 7 }}" in page.text()
    assert "49" not in [text for _, text in page.texts]


def _part() -> dict[str, Any]:
    return evaluation(8, AFTER) | {"prompts": 3}


@pytest.mark.parametrize("left_out", FILES)
def test_a_missing_file_is_told_where_it_is_missed(tmp_path: Path, left_out: str) -> None:
    page = report(tmp_path, **{left_out: None})
    ending = "jsonl" if left_out == "metrics" else "json"
    assert f"No {left_out}.{ending}:" in page.text()


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    page = report(tmp_path, **dict.fromkeys(FILES))
    assert page.text().count("not known") >= 7
    assert "not finished: 0 of 8 steps" in page.text()
    assert not page.all("figure")


def test_an_older_run_says_that_it_has_no_intervals(tmp_path: Path) -> None:
    assert "No intervals in evaluation_before.json and evaluation_after.json." in report(tmp_path).text()
    newer = {
        f"evaluation_{when}": evaluation(8, made, intervals=True)
        for when, made in (("before", BEFORE), ("after", AFTER))
    }
    assert "No interval" not in report(tmp_path / "new", **newer).text()


def test_a_stale_speed_report_is_shown_as_such(tmp_path: Path) -> None:
    told = "Stale: measured at step 4, the student is of step 8."
    assert told in report(tmp_path, speed=speed() | {"step": 4}).text()
    assert "Stale" not in report(tmp_path / "new").text()


def test_white_space_and_cuts_of_answers_are_seen(tmp_path: Path) -> None:
    after = [answer(" "), answer("") | {"cut": True}, answer("Hm. ", should_call=False)]
    page = report(tmp_path, evaluation_after=evaluation(8, after))
    shown = [element["class"] for element in page.all("span") if element.get("class", "").startswith("white")]
    assert shown.count("white space") == 2
    assert ("span", "(empty)") in page.texts
    assert "cut before a call" in page.text()


def test_categories_have_their_intervals(tmp_path: Path) -> None:
    part = evaluation(8, AFTER, intervals=True) | {"prompts": 3}
    page = report(tmp_path, evaluation_after=evaluation(8, AFTER) | {"categories": {"a": part, "b": part}})
    assert page.texts.count(("span", "80 to 100 %")) == 2  # valid calls, of either category


def test_a_torn_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    lines = "".join(json.dumps(line) + "\n" for line in metrics())
    page = report(tmp_path, metrics=lines + '{"step": 9, "ki')
    assert "The last line of metrics.jsonl was cut short" in page.text()
    page = report(tmp_path / "whole", metrics=lines.rstrip("\n"))
    assert "cut short" not in page.text()
    assert "8 of 8 steps" in page.text()


def test_empty_metrics(tmp_path: Path) -> None:
    assert "metrics.jsonl is empty" in report(tmp_path, metrics="").text()


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("a", "b"):
        assert main(["report", str(run), "--out", str(tmp_path / "pages" / f"{name}.html")]) == 0
    one, other = ((tmp_path / "pages" / f"{name}.html").read_bytes() for name in "ab")
    assert one == other
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["a.html", "b.html"]
    assert not (run / "report.html").exists()


# What users get wrong


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, tmp_path / "none").endswith(
        f"no such directory; give the io.run_dir of a `kdfast train`: {tmp_path / 'none'}"
    )
    assert "it has no config.yaml" in fails(capsys, tmp_path)
    assert "no such directory" in fails(capsys, Path(__file__))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config", "train: {num_step: 3}\n", "train.num_step: unknown key"),
        ("metrics", f'{LINE}{{"st\n{LINE}', "metrics.jsonl:2: not a JSON object"),
        ("metrics", LINE.replace("1,", "NaN,"), "metrics.jsonl:1: not a JSON object (NaN is not JSON)"),
        ("metrics", '{"step": "1", "kind": "train"}\n', "metrics.jsonl:1: step must be a number"),
        ("evaluation_after", '{"table": {', "evaluation_after.json: not readable JSON"),
        ("evaluation_before", "[]", "evaluation_before.json: the document must be an object"),
        ("speed", "\0", "speed.json: not readable JSON"),
        ("speed", "[" * 100_000, "speed.json: not readable JSON"),
        ("gates", "{}", "gates.json: kind is missing"),
    ],
)
def test_a_damaged_file_is_named_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, told: str
) -> None:
    run = write_run(tmp_path / "run", **{name: content})
    error = fails(capsys, run)
    assert told in error
    assert name == "config" or "again" in error
    assert not (run / "report.html").exists()


def test_bytes_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    (run / "speed.json").write_bytes(b"\xff\xfe{}")
    assert "speed.json: not readable JSON" in fails(capsys, run)
    (run / "speed.json").unlink()
    (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\n')
    assert "metrics.jsonl:2: not a JSON object" in fails(capsys, run)


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert "is a directory" in fails(capsys, run, "--out", tmp_path)
    (tmp_path / "file").write_text("")
    fails(capsys, run, "--out", tmp_path / "file" / "page.html")


def test_it_loads_no_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    code = (
        "import sys, kdfast.cli; kdfast.cli.main(['report', sys.argv[1]]);"
        "loaded = {'torch', 'transformers', 'pyarrow', 'kdfast._rust'} & sys.modules.keys(); assert not loaded, loaded"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(run)], check=True, stdout=subprocess.DEVNULL, env={**os.environ}
    )
