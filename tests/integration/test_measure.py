"""`kdfast measure` on a model, on a run, and on what users get wrong."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import exit_code
from model_commands import fails, run_on_model, write_nan_model
from tiny_run import write_config

from kdfast.speed import read_speed_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("measure")
    write_config(directory)
    return directory


measure = partial(run_on_model, "measure")


def test_a_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(folder, tmp_path / "new" / "report.json", "--limit=3", "--dtype=bf16") == 0
    shown = capsys.readouterr().out
    assert "time to first token" in shown
    assert "F1 0.00 (0.00 to 0.00), missed calls 1.00 (1.00 to 1.00)" in shown
    assert str(tmp_path / "new" / "report.json") in shown
    report = read_speed_report(tmp_path / "new" / "report.json")
    assert [prompt["line"] for prompt in report["prompts"]] == [1, 2, 3]
    assert [prompt["output_tokens"] for prompt in report["prompts"]] == [4.0] * 3
    assert (report["hardware"]["dtype"], report["hardware"]["torch_threads"]) == ("bf16", 1)
    assert report["decoding"]["max_new_tokens"] == 4
    known = {"prompts", "truth", "dataset", "model", "tokenizer", "template", "config"}
    assert set(report["fingerprints"]) == known
    assert report["quality"]["f1"]["per_prompt"] == [[0, 0, 1]] * 3  # four tokens are no call
    assert all(len(print_) == 64 for print_ in report["fingerprints"].values())


def test_a_run_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["shapes"] = [300, 512]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "student").symlink_to(folder / "teacher", target_is_directory=True)
    assert measure(folder, tmp_path / "run.json", "--limit=1", model=run) == 0
    assert measure(folder, tmp_path / "model.json", "--limit=1") == 0
    one, other = (read_speed_report(tmp_path / name) for name in ("run.json", "model.json"))
    own = ["--out", str(tmp_path / "own.json"), "--template=hermes", "--limit=1", "--max-new-tokens=4"]
    assert exit_code("measure", run, *own) == 0  # data.validation of the run
    assert read_speed_report(tmp_path / "own.json")["fingerprints"] == one["fingerprints"]
    capsys.readouterr()
    fails(capsys, exit_code("measure", folder / "teacher", *own), "Missing option '--prompts'")
    for name in ("prompts", "model", "tokenizer", "template"):
        assert one["fingerprints"][name] == other["fingerprints"][name]
    assert one["fingerprints"]["config"] != other["fingerprints"]["config"]
    assert list(one["shapes"]) == ["300"]  # the run's own shapes
    assert list(other["shapes"]) == ["512"]
    assert one["prompts"][0]["text"] == other["prompts"][0]["text"]


def test_models_that_are_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    fails(capsys, measure(folder, out, model=tmp_path / "none"), "no such directory", "none")
    fails(capsys, measure(folder, out, model=folder / "train.jsonl"), "this is a file", "train.jsonl")
    (tmp_path / "empty").mkdir()
    fails(capsys, measure(folder, out, model=tmp_path / "empty"), "no readable config.json", "empty")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    fails(capsys, measure(folder, out, model=tmp_path / "run"), "has no student yet", "--resume", "run")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (folder / "teacher").iterdir():
        os.link(file, broken / file.name)
    (broken / "config.json").unlink()
    (broken / "config.json").write_text('{"model_type": "lla')
    fails(capsys, measure(folder, out, model=broken), "config.json", "broken")
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", ("bad.jsonl", "no records")),
        (b'{"prompt": "a", "truth_text": "b"}\n{"prompt": "a", "tru', ("bad.jsonl:2:",)),
        (b'{"prompt": "a"}\n', ("bad.jsonl:1:",)),
        (b'{"prompt": "a", "truth_text": "\xff"}\n', ("bad.jsonl:1:", "UTF-8")),
    ],
    ids=["empty", "truncated", "no answer", "not UTF-8"],
)
def test_bad_prompts(
    folder: Path, tmp_path: Path, content: bytes, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(content)
    fails(capsys, measure(folder, tmp_path / "report.json", prompts=bad), *names)
    assert not (tmp_path / "report.json").exists()


def test_missing_prompts_and_templates(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    fails(capsys, measure(folder, out, prompts=tmp_path / "none.jsonl"), "none.jsonl")
    fails(capsys, measure(folder, out, "--template=none.jinja"), "none.jinja")
    fails(capsys, measure(folder, out, "--template=tokenizer"), "ignores tools", "hermes")


def test_a_report_that_cannot_be_written_is_told_before_the_measurement(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, measure(folder, tmp_path), "is a directory", str(tmp_path))
    assert "measure" not in capsys.readouterr().out


def test_a_prompt_that_is_too_long_names_its_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / "long.jsonl"
    records = [{"prompt": "a", "truth_text": "b"}, {"prompt": "a " * 2000, "truth_text": "b"}]
    long.write_text("".join(json.dumps(record) + "\n" for record in records))
    fails(
        capsys,
        measure(folder, tmp_path / "report.json", prompts=long),
        "long.jsonl:2",
        "--max-new-tokens 4",
        "1024",
    )
    assert measure(folder, tmp_path / "report.json", "--limit=1", prompts=long) == 0


def test_a_model_of_another_family(folder: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    vocab = json.loads((folder / "teacher" / "config.json").read_text())["vocab_size"]
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 512}
    GPT2LMHeadModel(GPT2Config(vocab_size=vocab, **sizes)).save_pretrained(tmp_path / "gpt2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        os.link(folder / "teacher" / name, tmp_path / "gpt2" / name)
    assert measure(folder, tmp_path / "report.json", "--limit=1", model=tmp_path / "gpt2") == 0
    assert read_speed_report(tmp_path / "report.json")["metrics"]["tps"]["count"] == 1


def test_nan_logits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nan_model(folder / "teacher", tmp_path / "nan")
    fails(
        capsys, measure(folder, tmp_path / "report.json", model=tmp_path / "nan"), "cannot be measured", "NaN"
    )
