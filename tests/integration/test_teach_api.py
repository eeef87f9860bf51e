"""`kdfast teach` with a server: from prompts over answers to a student, and what a user may do wrong on the way."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from commands import Finished, run_command, start_process, wait_until
from tiny import write_tokenizer

from kdfast.teacher.api.fake_server import FakeServer, by_index, by_text

ROOT = Path(__file__).parents[2]
KEY = "kd-secret-0123456789"
HOSTED = ("api.base_url=https://example.com/v1", "teacher.terms=acknowledged")


def prompts(path: Path, numbers: range) -> Path:
    """Prompts with tools and truths, all of which need a call; every fifth one has neither."""
    lines = []
    for number in numbers:
        record = tiny_run.record(4 * number)  # three of four, and all of these, need a call
        record.pop("teacher_text", None)
        if number % 5 == 4:
            record = {"messages": record["messages"], "metadata": {"id": number}}
        record["messages"][0]["content"] += f" ({number})"
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Folder:
    """A folder with all that `configs/api_teacher.yaml` names, small."""

    def __init__(self, path: Path, count: int = 20) -> None:
        self.path = path
        self.prompts = prompts(path / "prompts.jsonl", range(count))
        tiny_run.write_records(path / "validation.jsonl", range(100, 106))
        self.out, self.journal = path / "answers.jsonl", path / "answers.jsonl.db"

    def keys(self, server: FakeServer, *more: str) -> list[str]:
        model = self.path / "model"
        return [
            f"teacher.prompts={self.prompts}",
            f"teacher.out={self.out}",
            f"data.train={self.out}",
            f"data.validation={self.path / 'validation.jsonl'}",
            f"data.tokenizer={model}",
            f"arch.init={model}",
            "data.shapes=[256,512]",
            f"api.base_url={server.url}",
            f"io.run_dir={self.path / 'run'}",
            *more,
        ]

    def teach(self, server: FakeServer, *more: str, options: tuple[str, ...] = ()) -> Finished:
        return run_command("teach", ROOT / "configs/api_teacher.yaml", *options, *self.keys(server, *more))

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]

    def attempts(self, *states: str) -> int:
        """How many attempts are in one of these states; without states, in any."""
        with sqlite3.connect(self.journal) as database:
            found = [row[0] for row in database.execute("SELECT state FROM attempt")]
        return sum(state in (states or found) for state in found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_tokenizer(tmp_path / "model")
    return Folder(tmp_path)


def test_from_prompts_to_a_student(folder: Folder) -> None:
    tiny_run.write_teacher(folder.path / "model")
    with FakeServer() as server:
        dry = folder.teach(server, options=("--dry-run",))
        assert dry.returncode == 0, dry.stderr
        assert server.seen.total() == 0
        assert not folder.journal.exists()

        pilot = folder.teach(server, options=("--pilot", "8"))
        assert pilot.returncode in (0, 3), pilot.stderr
        assert server.seen.total() == 8
        assert "valid" in pilot.stdout

        whole = folder.teach(server)
        assert whole.returncode == 0, whole.stderr
        assert server.seen.total() == 20, "the pilot's answers are not asked for again"
        first = folder.out.read_bytes()
        records = folder.records()
        assert len(records) == 20
        assert {"teacher_message", "tools", "truth_message", "messages", "metadata"} == set(records[0])
        call = records[0]["teacher_message"]["tool_calls"][0]["function"]
        assert call["name"] == "get_weather"
        assert isinstance(call["arguments"], dict)
        assert records[4]["teacher_message"]["content"].startswith("echo: What is the weather")

        again = folder.teach(server)
        assert again.returncode == 0
        assert server.seen.total() == 20
        folder.out.unlink()
    replay = folder.teach(server, "teacher.kind=replay")  # the server is gone
    assert replay.returncode == 0, replay.stderr
    assert folder.out.read_bytes() == first

    verify = run_command("journal", "verify", folder.journal, "--dataset", folder.out)
    assert verify.returncode == 0, verify.stdout + verify.stderr
    keys = folder.keys(server, "train.num_steps=2", "train.validate_every_steps=0", "train.eval_prompts=0")
    few = ["train.eval_irrelevance_prompts=0", "optimizer.warmup_steps=0", "train.checkpoint_every_steps=0"]
    trained = run_command("train", ROOT / "configs/api_teacher.yaml", *keys, *few)
    assert trained.returncode == 0, trained.stderr
    everything = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
    assert KEY.encode() not in everything


def test_what_is_filtered_and_what_failed_is_counted_and_stays(folder: Folder) -> None:
    with FakeServer(
        by_text({"(0)": "content_filter", "(1)": "truncated_json", "(2)": "error_500"})
    ) as server:
        few = ("teacher.max_retries=0",)
        result = folder.teach(server, *few)
        assert result.returncode == 5, result.stderr
        assert "content_filter" in result.stdout
        assert "1 of them are asked again by: kdfast teach" in result.stderr
        assert len(folder.records()) == 17
        assert folder.attempts() == 20
        seen = server.seen.total()
        folder.teach(server, *few)
        assert server.seen.total() == seen + 1, "only the server's own error is asked again"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [("unauthorised", "Incorrect API key"), ("unknown_model", "does not exist"), ("quota", "current quota")],
)
def test_a_job_that_cannot_succeed_stops_in_the_servers_words(
    folder: Folder, behaviour: str, words: str
) -> None:
    with FakeServer(by_index([behaviour] * 100)) as server:
        result = folder.teach(server, "api.concurrency=1")
        assert result.returncode == 5
        assert server.seen.total() == 1
        assert words in result.stderr
        assert KEY not in result.stdout + result.stderr
    with FakeServer() as mended:
        assert folder.teach(mended).returncode == 0
        assert len(folder.records()) == 20


def test_the_budget_is_hard_and_the_rest_is_asked_later(folder: Folder) -> None:
    price = ("price.free=false", "price.input=1", "price.output=2", "api.concurrency=2")
    with FakeServer() as server:
        poor = folder.teach(server, *price, "teacher.budget=0.004")
        assert poor.returncode == 5
        assert "the budget is reached" in poor.stderr
        assert "kdfast teach" in poor.stderr
        asked = server.seen.total()
        assert 0 < asked < 20
        assert len(folder.records()) == asked
        with sqlite3.connect(folder.journal) as database:
            assert database.execute("SELECT charged_micro FROM total").fetchone()[0] <= 4_000
        rich = folder.teach(server, *price, "teacher.budget=10")
        assert rich.returncode == 0, rich.stderr
        assert server.seen.total() == 20


def test_a_limit_takes_a_sample_of_both_kinds(folder: Folder) -> None:
    with FakeServer() as server:
        assert folder.teach(server, options=("--limit", "5")).returncode == 0
        assert server.seen.total() == 5
        assert sum("tools" in record for record in folder.records()) == 4


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["api.base_url=null"], "api.base_url: needed by teacher.kind 'api'"),
        (["api.model=null"], "api.model: needed by teacher.kind 'api'"),
        (["price.free=false"], "price.input"),
        (
            ["api.base_url=https://example.com/v1"],
            "teacher.terms: prompts leave this machine for example.com",
        ),
        (["teacher.prompts=nowhere.jsonl"], "teacher.prompts: no such file"),
        (["teacher.kind=replay"], "teacher.journal: no such file"),
        (["api.extra_body={api_key: 1}"], "api.extra_body.api_key: a key must not be in a config"),
    ],
)
def test_mistakes_are_said_before_anything_is_asked(folder: Folder, keys: list[str], words: str) -> None:
    with FakeServer() as server:
        result = folder.teach(server, *keys)
        assert result.returncode == 2, result.stdout
        assert words in result.stderr
        assert result.stderr.count("error:") == 1
        assert server.seen.total() == 0
        assert not folder.journal.exists()


def test_a_prompt_that_training_would_refuse_is_refused_before_it_is_paid(folder: Folder) -> None:
    lines = folder.prompts.read_text().splitlines()
    lines[7] = json.dumps({"messages": [{"role": "user", "content": "long " * 2000}]})
    folder.prompts.write_text("\n".join(lines) + "\n")
    with FakeServer() as server:
        result = folder.teach(server)
        assert result.returncode == 2
        assert f"{folder.prompts}:8: an answer to this prompt could not be learned" in result.stderr
        assert folder.teach(server, "data.on_error=quarantine").returncode == 0
        assert server.seen.total() == 19


def test_private_text_is_counted_and_replaced(folder: Folder) -> None:
    lines = [json.loads(line) for line in folder.prompts.read_text().splitlines()]
    lines[4]["messages"][0]["content"] = "Write to ann@work.org, please"
    folder.prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with FakeServer() as server:
        result = folder.teach(server, *HOSTED, options=("--dry-run",))
        assert "1 e-mail address" in result.stdout
        assert folder.teach(server, "teacher.redact=true").returncode == 0
        assert not [text for text in server.texts if "ann@work.org" in text]
        assert folder.records()[4]["messages"][0]["content"] == "Write to [EMAIL_1], please"


@pytest.mark.slow
def test_the_api_teacher_imports_no_torch(folder: Folder) -> None:
    with FakeServer() as server:
        code = (
            "import sys; from kdfast.cli import main\n"
            "status = main(sys.argv[1:])\n"
            "heavy = [name for name in ('torch', 'transformers', 'pandas') if name in sys.modules]\n"
            "sys.exit(f'imported: {heavy}' if heavy else status)\n"
        )
        arguments = ["teach", str(ROOT / "configs/api_teacher.yaml"), *folder.keys(server)]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert server.seen.total() == 20


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_what_is_in_flight(folder: Folder, number: int) -> None:
    with FakeServer(latency_s=0.3) as server:
        config = ROOT / "configs/api_teacher.yaml"
        process = start_process(
            "teach", config, *folder.keys(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_until(lambda: server.seen.total() >= 4, process)
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == 130, err
        asked = server.seen.total()
        assert asked < 20
        assert folder.attempts("answered") == asked
        assert len(folder.records()) == asked
        assert "kdfast teach" in out
        assert folder.teach(server).returncode == 0
        assert server.seen.total() == 20


@pytest.mark.slow
def test_killed_at_random_no_answer_is_lost_or_asked_again(folder: Folder) -> None:
    with FakeServer(latency_s=0.02) as server:
        config = ROOT / "configs/api_teacher.yaml"
        before = -1
        while before < server.seen.total() < 20:
            before = server.seen.total()
            process = start_process(
                "teach", config, *folder.keys(server), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            wait_until(lambda: server.seen.total() > before + 2, process)  # noqa: B023
            process.kill()
            process.wait()
        assert folder.teach(server, "teacher.max_unknown_retries=100").returncode == 0
        unknown = folder.attempts("unknown")
        assert server.seen.total() <= 20 + unknown
        assert len(folder.records()) == 20
