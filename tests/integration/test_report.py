"""`kdfast report` on what real commands write: a tiny run, trained, evaluated and measured."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from commands import exit_code, run_command
from html_page import Page
from tiny_run import write_config

from kdfast.page.speed import speed_section
from kdfast.runs.csv_files import write_metrics_csv
from kdfast.runs.folder import RunFolder
from kdfast.runs.metrics import read_metrics
from kdfast.runs.reading import read_run
from kdfast.speed import read_speed_report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    path = write_config(
        directory,
        kd__kl_weight=0.0,
        kd__ce_truth_weight=1.0,
        train__eval_prompts=3,
        train__eval_irrelevance_prompts=1,
        train__eval_max_new_tokens=8,
    )
    done = run_command("train", path, "train.num_steps=4", "train.validate_every_steps=2", "speed.prompts=2")
    assert done.returncode == 0, done.stderr
    return directory / "run"


def page(run: Path, out: Path) -> Page:
    assert exit_code("report", run, "--out", out) == 0
    return Page(out.read_text(encoding="utf-8"))


def test_every_file_of_the_run_folder_is_read(run: Path) -> None:
    folder, read = RunFolder(run), read_run(run)
    named = [folder.evaluation("before"), folder.evaluation("after"), folder.speed, folder.gates]
    for file, node in zip(named, (read.before, read.after, read.speed, read.gates), strict=True):
        assert file.exists()
        assert getattr(node, "value", None) == json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(read.metrics, list)
    assert [node.value for node in read.metrics] == read_metrics(folder.metrics)
    assert read.config.io.run_dir == run


def test_the_page_of_a_real_run(run: Path, tmp_path: Path) -> None:
    made = page(run, tmp_path / "page.html")
    text = made.text()
    assert "4 of 4 steps" in text
    assert "cut before a call on 2 of 2 prompts (100 %)" in text
    assert "Stale" not in text
    assert "Where a call is due 3 prompts" in text
    titles = [text for tag, text in made.texts if tag == "b"]
    assert "cross-entropy, ground truth" in titles
    assert "divergence from the teacher" not in titles  # it has no weight in this run
    assert "No speed.json" not in text
    assert "No evaluation" not in text
    after = json.loads((run / "evaluation_after.json").read_text(encoding="utf-8"))
    shown = [text for tag, text in made.texts if tag in ("pre", "span")]
    words = after["answers"][0]["text"].split()
    assert not words or any(words[0] in text for text in shown)


def test_the_speed_section_has_the_reports_numbers(run: Path) -> None:
    read = read_run(run)
    report = read_speed_report(run / "speed.json")
    from kdfast.page.history import History

    section = speed_section(read, History(train=[], validation=[], speed=[]))
    assert section.metrics.keys() == report["metrics"].keys()
    assert (
        report["decoding"]["max_new_tokens"] == 8
    )  # speed.max_new_tokens is not set: train.eval_max_new_tokens
    assert section.stale is None
    assert section.metrics["ttfa_tokens"].cut == 2  # a random student does not end its answers
    for name, metric in section.metrics.items():
        found = report["metrics"][name]
        assert metric.median == (float("inf") if found["p50"] is None else found["p50"])
        assert (metric.count, metric.infinite) == (found["count"], found["infinite"])
    assert dict(section.facts)["hardware"] == report["hardware"]["key"]


def test_a_run_that_went_on_without_measuring_has_a_stale_report(run: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    shutil.copytree(run, longer)
    overrides = ("train.num_steps=6", "speed.every_validations=0", f"io.run_dir={longer}")
    assert exit_code("train", run.parent / "config.yaml", "--resume", *overrides) == 0
    text = page(longer, tmp_path / "longer.html").text()
    assert "Stale: measured at step 4, the student is of step 6." in text
    assert "Acts on every prompt not known stale: measured at step 4" in text


def test_a_run_that_was_stopped_has_a_page(run: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    lines = (run / "metrics.jsonl").read_bytes()
    (half / "metrics.jsonl").write_bytes(lines[: len(lines) // 2])
    text = page(half, tmp_path / "half.html").text()
    assert "not finished:" in text
    assert "No evaluation_after.json: the run has not reached its end" in text


def test_two_real_runs_are_compared(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "copy" / "run"
    shutil.copytree(run, other)
    assert exit_code("report", run, other, "--out", tmp_path / "both.html") == 0
    assert "warning" not in capsys.readouterr().out  # a checkpoint proves that all inputs are the same
    made = Page((tmp_path / "both.html").read_text(encoding="utf-8"))
    text = made.text()
    assert text.count("Yes.") == 4  # the loss, its terms, tool calls, speed; no teacher, no divergence
    assert "All runs have the same config" in text
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(run / "student")
    parameters = sum(parameter.numel() for parameter in student.parameters())
    assert text.count(f"{parameters:,}") == 2


def test_the_metrics_of_a_real_run_as_csv(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "metrics.jsonl", tmp_path)
    with write_metrics_csv(tmp_path / "metrics.jsonl").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    lines = read_metrics(run / "metrics.jsonl")
    assert [(int(row["step"]), row["kind"]) for row in rows] == [
        (line["step"], line["kind"]) for line in lines
    ]
    for row, line in zip(rows, lines, strict=True):
        assert all(float(row[name]) == value for name, value in line.items() if isinstance(value, float))
