"""The promise of `kdfast teach`, with jobs of an api teacher that are killed at any moment."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import journals
import pytest
import teach_worker
import yaml
from forking import Starter
from tiny import write_tokenizer
from tiny_run import TOOL

from kdfast.teacher.api.fake_server import FakeServer, by_times_seen
from kdfast.teacher.api.journal import Journal, verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    made = Starter(teach_worker.__file__)
    yield made
    made.close()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def config(folder: Path, tokenizer: Path, server: FakeServer, prompts: int, **api: int) -> list[str]:
    """Writes prompts and a config; gives the arguments of `kdfast teach`."""
    folder.mkdir(exist_ok=True)
    lines = [
        {"messages": [{"role": "user", "content": f"n {number}"}], "tools": [TOOL]}
        for number in range(prompts)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sections = {
        "arch": {"init": "none"},
        "data": {
            "train": str(folder / "out.jsonl"),
            "tokenizer": str(tokenizer),
            "shapes": [512],
            "threads": 1,
        },
        "teacher": {
            "kind": "api",
            "prompts": str(folder / "prompts.jsonl"),
            "out": str(folder / "out.jsonl"),
            "max_unknown_retries": 1000,
        },
        "api": {"base_url": server.url, "model": "m", "key_from_env": None} | api,
        "price": {"input": 1, "output": 2},
        "io": {"run_dir": str(folder / "run")},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(sections))
    return [str(folder / "config.yaml")]


class Promise:
    """Checks the promise after every kill."""

    def __init__(self, folder: Path, server: FakeServer) -> None:
        self.path, self.server = folder / "out.jsonl.db", server
        self.before = server.seen.total()
        self.answers: dict[str, bytes] = {}
        self.seen: collections.Counter[str] = collections.Counter()

    def check(self, most_unknown: int) -> int:
        """Nothing that was committed before is lost; gives the number of unknown outcomes."""
        if not self.path.exists():
            assert self.server.seen.total() == self.before
            return 0
        with Journal(self.path) as journal:
            found = verify(journal)
            assert found.ok, found.faults
            stats = journal.stats()
            answers = {one.hash: one.body for one in journal.all_answers()}
        assert self.answers.items() <= answers.items()
        self.answers = answers
        assert stats.in_flight == 0
        assert stats.unknown <= most_unknown
        assert self.server.seen.total() - self.before <= stats.answered + stats.not_final + stats.unknown
        return stats.unknown


def test_a_kill_between_any_two_steps_loses_nothing(starter: Starter, tokenizer: Path) -> None:
    with journals.quick_folder() as folder, FakeServer(by_times_seen(["error_500"]), wait_s=0.01) as server:
        whole = config(folder / "whole", tokenizer, server, 1, concurrency=1)
        # another question, so that the server sees it for the first time
        point, unknown, killed = 0, 0, True
        assert starter.run(whole) == 0
        expected = (folder / "whole" / "out.jsonl").read_bytes()
        while killed:
            point += 1
            one = folder / str(point)
            arguments = config(one, tokenizer, server, 1, concurrency=1)
            promise = Promise(one, server)
            killed = starter.run(arguments, point) == -signal.SIGKILL
            unknown += promise.check(most_unknown=1)
            assert starter.run(arguments) == 0
            promise.check(most_unknown=1)
            assert (one / "out.jsonl").read_bytes() == expected, point
        assert point > 10
        assert unknown >= 1, "some kills came after the request was sent"


def test_killed_at_random_instants_no_answer_is_lost_or_asked_again(
    starter: Starter, tokenizer: Path
) -> None:
    noise = random.Random(0)
    with journals.quick_folder() as folder, FakeServer(latency_s=0.02) as server:
        arguments = config(folder / "one", tokenizer, server, 400, concurrency=4)
        promise = Promise(folder / "one", server)
        for kills in range(1, 51):
            process = starter.start(arguments)
            time.sleep(noise.uniform(0, 0.4))
            with contextlib.suppress(ProcessLookupError):  # it was done
                os.kill(process, signal.SIGKILL)
            starter.wait()
            promise.check(most_unknown=4 * kills)
        assert starter.run(arguments) == 0
        promise.check(most_unknown=4 * kills)
        assert len(promise.answers) == 400
        seen = server.seen.total()
        assert starter.run(arguments) == 0
        assert server.seen.total() == seen, "what is answered is not sent"
        again = config(folder / "two", tokenizer, server, 400)
        assert starter.run(again) == 0
        assert (folder / "one" / "out.jsonl").read_bytes() == (folder / "two" / "out.jsonl").read_bytes()
