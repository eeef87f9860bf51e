"""The quickstart's own teacher answers on this machine: 32 prompts, in batches of 1 and of 8, in one go and in two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_run
import yaml
from commands import run_command

from kdfast.teacher.api.journal import Journal

PROMPTS = 32


def write_config(folder: Path, converted: Path) -> Path:
    """A config whose prompts have tools or none, by turns."""
    folder.mkdir()
    lines: list[dict[str, Any]] = []
    for number in range(PROMPTS):
        record = tiny_run.record(4 * number)
        tools = {"tools": record["tools"]} if number % 2 else {}
        lines.append({"messages": record["messages"]} | tools)
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    config = {
        "arch": {"init": "teacher"},
        "data": {"train": str(folder / "out.jsonl"), "tokenizer": str(converted), "template": "hermes"},
        "teacher": {
            "kind": "local",
            "model": str(converted),
            "store": str(folder / "store"),
            "prompts": str(prompts),
            "out": str(folder / "out.jsonl"),
            "max_new_tokens": 12,
        },
        "io": {"run_dir": str(folder / "run")},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def answers(folder: Path) -> list[bytes]:
    """The raw answers, by the prompts' order."""
    with Journal(folder / "out.jsonl.db", read_only=True) as journal:
        return [answer.body for answer in journal.all_answers()]


def test_32_prompts_in_any_batch_and_after_a_stop(tmp_path: Path, converted: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = run_command("teach", write_config(whole, converted), "teacher.batch_size=8")
    assert done.returncode == 0, done.stderr
    assert len(answers(whole)) == PROMPTS

    config = write_config(parts, converted)
    first = run_command("teach", config, "teacher.batch_size=1", "--limit", "9")
    assert first.returncode == 0, first.stderr
    assert len(answers(parts)) == 9
    second = run_command("teach", config, "teacher.batch_size=1")
    assert second.returncode == 0, second.stderr
    assert "32 requests, 23 of them to be answered" in second.stdout
    assert answers(parts) == answers(whole)
    assert (parts / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()
    rows = len((whole / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert f"{rows} rows in the store" in second.stdout, "and it scored them"
