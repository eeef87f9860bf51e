"""A run with `data.show_tools: false`: its student knows no other prompt, whatever command renders it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from commands import exit_code, run_command
from qat_runs import PLAIN
from tiny_run import TOOL, record, write_config
from transformers import AutoTokenizer

from kdfast.config import load_config
from kdfast.data import KDDataset, load_template
from kdfast.speed import read_speed_report

FAST = [*(one for one in PLAIN if not one.startswith("quant.")), "train.num_steps=2"]
HELD_OUT = range(48, 60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baked")
    path = write_config(folder, data__show_tools=False, train__eval_prompts=2, train__eval_max_new_tokens=4)
    done = run_command("train", path, *FAST)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "tools.json").write_text(json.dumps([TOOL]))
    return folder / "run"


def question(number: int) -> str:
    return str(record(number)["messages"][0]["content"])


def prompt(number: int) -> str:
    return f"<|im_start|>user\n{question(number)}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def lengths(run: Path) -> list[int]:
    """Tokens of the prompts that are held out."""
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    return [len(tokenizer.encode(prompt(number), add_special_tokens=False)) for number in HELD_OUT]


def test_the_saved_template_shows_none(run: Path) -> None:
    student = run / "student"
    assert not (student / "additional_chat_templates").exists()
    assert "chat_template" not in json.loads((student / "tokenizer_config.json").read_text())
    template = load_template("tokenizer", student)
    assert template.hides_tools
    data = load_config(run / "config.yaml").data
    assert not data.show_tools
    trained = KDDataset.from_config(data, data.validation)
    assert template.source == trained.template.source
    theirs = AutoTokenizer.from_pretrained(student)
    for number in (48, 51):
        messages = record(number)["messages"]
        for tools in (None, [TOOL]):
            text = theirs.apply_chat_template(
                messages, tools=tools, add_generation_prompt=True, tokenize=False
            )
            assert text == prompt(number)


def test_eval_asks_without_tools_and_judges_with_them(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    assert exit_code("eval", run, "--out", out, "--device=cpu", "--threads=1", "--max-new-tokens=4") == 0
    student = tmp_path / "student.json"
    held_out = run.parent / "validation.jsonl"
    named = ["--prompts", held_out, "--out", student, "--device=cpu", "--threads=1", "--max-new-tokens=4"]
    assert exit_code("eval", run / "student", *named) == 0
    found, again = (json.loads(path.read_text()) for path in (out, student))
    assert found["answers"] == again["answers"]
    assert found["fingerprints"]["template"] == again["fingerprints"]["template"]
    assert (found["prompts"], found["due"]) == (12, 9)
    # the run's own evaluation asked the same prompts
    own = json.loads((run / "evaluation_after.json").read_text())
    texts = {answer["line"]: answer["text"] for answer in found["answers"]}
    assert [texts[answer["line"]] for answer in own["answers"]] == [
        answer["text"] for answer in own["answers"]
    ]


def test_measure_reads_prompts_without_tools(run: Path, tmp_path: Path, lengths: list[int]) -> None:
    out = tmp_path / "speed.json"
    assert exit_code("measure", run, "--out", out, "--device=cpu", "--threads=1", "--max-new-tokens=4") == 0
    report = read_speed_report(out)
    assert sorted(one["prompt_tokens"] for one in report["prompts"]) == sorted(lengths)


def test_chat_shows_none_and_checks_calls_with_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int]
) -> None:
    shown = []
    for options in ([], ["--tools", run.parent / "tools.json"]):
        typed = io.TextIOWrapper(io.BytesIO(question(48).encode() + b"\n"), encoding="utf-8")
        monkeypatch.setattr("sys.stdin", typed)
        done = run_command("chat", run, "--max-new-tokens=4", "--threads=1", *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"[prompt {lengths[0]} tokens, " in done.stdout, done.stdout
        shown.append([line for line in done.stdout.splitlines()[1:] if not line.startswith("  [")])
    assert shown[0] == shown[1]


def test_an_export_is_compared_and_says_how_it_is_served(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    held_out = run.parent / "validation.jsonl"
    done = run_command("export", run, "--target=gguf", "--prompts", held_out, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    parity = manifest["parity"]
    assert (parity["prompt"]["status"], parity["prompt"]["figures"]["equal"]) == ("passed", 12)
    # A student that never trained may end no answer; then no end is measured.
    assert parity["calls"]["status"] in ("passed", "not_measured")
    assert parity["calls"]["figures"]["tools_sent"] is False
    assert parity["calls"]["problems"] == []
    assert "**no `tools`**" in (out / "README.md").read_text()
    assert "get_weather" in (out / "tools.gbnf").read_text()
    hf = tmp_path / "hf"
    done = run_command("export", run, "--target=hf", "--prompts", held_out, "--out", hf)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((hf / "manifest.json").read_text())["parity"]["prompt"]["figures"]["equal"] == 12
    assert "Send no `tools`" in (hf / "README.md").read_text()
    speed = tmp_path / "speed.json"
    command = ["measure", out, "--prompts", held_out, "--out", speed, "--threads=1", "--max-new-tokens=4"]
    assert exit_code(*command) == 0
    assert "get_weather" not in speed.read_text()
