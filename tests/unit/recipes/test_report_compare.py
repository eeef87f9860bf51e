"""`kdfast report RUN RUN`: where the page goes, what is told, and which run an error names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from html_page import Page
from made_run import config, metrics, write_run

from kdfast.cli import main


def fails(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    assert main(["report", *map(str, arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    return error


def test_two_runs_on_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "run", config=config(kd__kl_weight=0.5 if name == "a" else 0.75))
    monkeypatch.chdir(tmp_path)
    assert main(["report", "a/run", "b/run"]) == 0
    told = capsys.readouterr().out
    assert "verdict      a/run: Not good: 4 good, 1 worth a look, 1 bad" in told
    assert (
        "warning      Held-out loss, the weighted sum: cannot be compared. Other values of kd.kl_weight"
        in told
    )
    assert told.splitlines()[-1].split() == ["comparison", "comparison.html"]
    page = Page((tmp_path / "comparison.html").read_text(encoding="utf-8"))
    assert {"a/run", "b/run"} <= {text for tag, text in page.texts if tag == "span"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "comparison.html"]
    assert not (tmp_path / "a" / "run" / "report.html").exists()


def test_the_page_stands_alone(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "abc"]
    out = tmp_path / "new" / "page.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    source = out.read_text(encoding="utf-8")
    page = Page(source)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    assert not re.search(r"https?://|url\(|@import|javascript:", source)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert source.count("prefers-color-scheme: dark") == 2
    assert "@media print" in source
    again = tmp_path / "again.html"
    assert main(["report", *map(str, runs), "--out", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_run_that_is_still_going(tmp_path: Path) -> None:
    line = '{"step": 1, "kind": "train", "loss": 1.0}\n'
    runs = [write_run(tmp_path / "whole"), write_run(tmp_path / "going", metrics=line + '{"step": 2, "ki')]
    out = tmp_path / "page.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    text = Page(out.read_text(encoding="utf-8")).text()
    assert "The last line of metrics.jsonl of going is not whole" in text


def test_the_same_run_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert fails(capsys, run, run).endswith(f"run: named twice; name each run once: {run}")
    link = tmp_path / "link"
    link.symlink_to(run)
    other = write_run(tmp_path / "other")
    assert fails(capsys, run, other, link).endswith(f"name each run once: {run} is {link}")


def test_errors_name_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_run(tmp_path / "good")
    assert str(tmp_path / "none") in fails(capsys, good, tmp_path / "none")
    bad = write_run(tmp_path / "bad", config="train: {num_step: 3}\n")
    assert str(bad / "config.yaml") in fails(capsys, good, bad)
    bad = write_run(tmp_path / "torn", gates="{")
    assert str(bad / "gates.json") in fails(capsys, good, bad)
    bad = write_run(tmp_path / "wrong", metrics=[*metrics(), {"step": "9", "kind": "train"}])
    assert f"{bad / 'metrics.jsonl'}:" in fails(capsys, good, bad)
    assert "is a directory" in fails(capsys, good, write_run(tmp_path / "c"), "--out", tmp_path)
    assert not list(tmp_path.glob("*.html"))


def test_no_run_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Missing argument 'RUN...'" in fails(capsys)


def test_it_loads_no_torch(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name)) for name in "ab"]
    code = (
        "import sys, kdfast.cli; kdfast.cli.main(['report', *sys.argv[1:]]);"
        "loaded = {'torch', 'transformers', 'pyarrow', 'kdfast._rust'} & sys.modules.keys(); assert not loaded, loaded"
    )
    command = [sys.executable, "-c", code, *runs, "--out", str(tmp_path / "page.html")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ})
