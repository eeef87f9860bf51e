"""`kdfast teach` with a server: from prompts over answers to a student, and what a user may do wrong on the way."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from commands import PATIENCE_S, Finished, run_command, start_process, wait_until
from tiny import write_tokenizer

from kdfast.teacher.api.fake_replies import FakeRequest
from kdfast.teacher.api.fake_server import FakeServer, by_index, by_text, by_times_seen

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
        arguments = ("--no-preflight", *options, *self.keys(server, *more))
        return run_command("teach", ROOT / "configs/api_teacher.yaml", *arguments)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]

    def attempts(self, *states: str) -> int:
        """How many attempts are in one of these states; without states, in any."""
        with sqlite3.connect(self.journal) as database:
            found = [row[0] for row in database.execute("SELECT state FROM attempt")]
        return sum(state in (states or found) for state in found)

    def charged_micro(self) -> int:
        with sqlite3.connect(self.journal) as database:
            return int(database.execute("SELECT charged_micro FROM total").fetchone()[0])

    def costs(self) -> list[int]:
        with sqlite3.connect(self.journal) as database:
            return [row[0] for row in database.execute("SELECT cost_micro FROM attempt")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_tokenizer(tmp_path / "model")
    return Folder(tmp_path)


@pytest.mark.slow
def test_from_prompts_to_a_student(folder: Folder) -> None:
    tiny_run.write_teacher(folder.path / "model")
    with FakeServer() as server:
        dry = folder.teach(server, options=("--dry-run",))
        assert dry.returncode == 0, dry.stderr
        assert server.seen.total() == 0
        assert not folder.journal.exists()

        pilot = folder.teach(server, options=("--pilot", "8"))
        assert pilot.returncode == 0, pilot.stderr
        assert "8/8 100 %" in pilot.stdout
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

    config = ROOT / "configs/api_teacher.yaml"
    verify = run_command("journal", "verify", folder.journal, "--config", config, *folder.keys(server))
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
        poor = folder.teach(server, *price, "teacher.budget=0.004", options=("--limit", "19"))
        assert poor.returncode == 5
        assert "the budget is reached" in poor.stderr
        assert "raise teacher.budget, then go on with: kdfast teach" in poor.stderr
        again = poor.stderr.partition("go on with: ")[2]
        assert "--limit 19" in again
        assert "teacher.budget" not in again
        asked = server.seen.total()
        assert 0 < asked < 20
        assert len(folder.records()) == asked
        spent = folder.charged_micro()
        assert 0 < spent <= 4_000
        # neither a replay nor another price makes cheaper what was paid
        assert folder.teach(server, "teacher.kind=replay").returncode == 5, "not all are answered"
        cheap = ("price.free=false", "price.input=0.001", "price.output=0.001", "teacher.budget=0.004")
        folder.teach(server, *cheap, options=("--limit", "1"))
        assert folder.charged_micro() >= spent
        asked = server.seen.total()
        rich = folder.teach(server, *price, "teacher.budget=10")
        assert rich.returncode == 0, rich.stderr
        assert server.seen.total() == 20
        assert folder.charged_micro() == sum(folder.costs())


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
        (["api.extra_body={n: 2}"], "api.extra_body.n: set teacher.answers_per_prompt instead"),
        (["api.base_url=http://localhost/v1/chat/completions"], "api.base_url: must be the address above"),
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
        few = folder.teach(server, "data.on_error=quarantine")
        assert (few.returncode, server.seen.total()) == (2, 0)
        assert "1 of 20 prompts cannot be asked, more than data.max_rejected_fraction allows" in few.stderr
        enough = folder.teach(server, "data.on_error=quarantine", "data.max_rejected_fraction=0.1")
        assert (enough.returncode, server.seen.total()) == (0, 19)
        assert "line 8 is not asked" in enough.stdout


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
        arguments = ["teach", "--no-preflight", str(ROOT / "configs/api_teacher.yaml"), *folder.keys(server)]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert server.seen.total() == 20


@pytest.mark.slow
def test_a_signal_drains_what_is_in_flight(folder: Folder) -> None:
    released = threading.Event()

    def answer_when_released(_: FakeRequest) -> str:
        released.wait(PATIENCE_S)
        return "ok"

    with FakeServer(answer_when_released) as server:
        config = ROOT / "configs/api_teacher.yaml"
        process = start_process(
            "teach",
            "--no-preflight",
            config,
            *folder.keys(server),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: server.seen.total() >= 1, process)
        process.send_signal(signal.SIGINT)
        released.set()
        out, err = process.communicate()
        assert process.returncode == 130, err
        asked = server.seen.total()
        assert asked <= 4, "those that were in flight"
        assert folder.attempts("answered") == asked
        assert len(folder.records()) == asked
        assert "stopped; go on with: kdfast teach" in out
        assert folder.teach(server).returncode == 0
        assert server.seen.total() == 20


def test_what_the_user_has_is_not_overwritten(folder: Folder) -> None:
    validation = folder.path / "validation.jsonl"
    mine = folder.path / "mine.jsonl"
    mine.write_text('{"prompt": "a", "teacher_text": "b"}\n')
    before = {path: path.read_bytes() for path in (folder.prompts, validation, mine)}
    roundabout = folder.path / ".." / folder.path.name / "prompts.jsonl"
    with FakeServer() as server:
        for out, words in (
            (roundabout, "teacher.out: would overwrite teacher.prompts"),
            (validation, "teacher.out: would overwrite data.validation"),
            (mine, "teacher.out: holds records that kdfast teach did not write"),
        ):
            result = folder.teach(server, f"teacher.out={out}", f"data.train={folder.path / 'other.jsonl'}")
            assert result.returncode == 2, result.stdout
            assert words in result.stderr
        result = folder.teach(server, options=("--json", str(folder.prompts)))
        assert "--json: would overwrite teacher.prompts" in result.stderr
        assert server.seen.total() == 0
    assert {path: path.read_bytes() for path in before} == before


def test_what_the_server_refused_can_be_asked_again(folder: Folder) -> None:
    with FakeServer(by_times_seen(["bad_request"])) as server:
        refused = folder.teach(server, "teacher.max_failures_in_a_row=100")
        assert refused.returncode == 5
        assert "no answer can be learned (refused_request 20), so nothing was written" in refused.stderr
        assert folder.teach(server).returncode == 5
        assert server.seen.total() == 20, "a refusal is stored like an answer"
        assert folder.teach(server, "teacher.ask_refused_again=true").returncode == 0
        assert server.seen.total() == 40
        assert len(folder.records()) == 20
        assert folder.teach(server, "teacher.ask_refused_again=true").returncode == 0
        assert server.seen.total() == 40, "answers are never asked again"


def test_a_server_that_does_not_run_is_said_at_once(folder: Folder) -> None:
    with FakeServer() as server:
        pass
    result = folder.teach(server)
    assert result.returncode == 5
    assert "no server takes connections" in result.stderr
    assert server.url in result.stderr


def test_a_pilot_whose_server_fails_is_no_verdict_on_the_teacher(folder: Folder) -> None:
    with FakeServer(by_index(["error_500"] * 100)) as server:
        result = folder.teach(server, "teacher.max_retries=0", options=("--pilot", "5"))
    assert result.returncode == 5
    assert f"5 requests have no answer (HTTP status 500 from {server.url}/chat/completions)" in result.stderr
