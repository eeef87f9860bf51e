"""Journals for tests: a clock that is set by hand, owners, and short requests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdfast.teacher.api.journal import Answer, Attempt, Journal, Leases, Request, Response

ENDPOINT = "http://localhost/v1/chat/completions"
LEASE_S = 100.0
PAGE_BYTES = 4096


@dataclass
class Clock:
    """Gives the time that was set."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def leases(owner: str, clock: Clock) -> Leases:
    return Leases(LEASE_S, owner, clock)


def request(number: int = 0, *, sample: int = 0, order: int | None = None) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
    return Request(ENDPOINT, body, sample, number if order is None else order)


def response(text: str = '{"choices": []}', status: int = 200) -> Response:
    return Response(status, {"Content-Type": "application/json"}, text.encode(), 7)


def begun(journal: Journal, asked: Request, worst_micro: int = 100, **limits: int) -> Attempt:
    attempt = journal.begin_attempt(asked, worst_micro, **limits)
    assert isinstance(attempt, Attempt), attempt
    return attempt


def answered(journal: Journal, asked: Request, text: str = '{"choices": []}', **settings: int) -> Answer:
    return journal.finish_attempt(begun(journal, asked), response(text), final=True, **settings)


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: a commit on a disk takes some 20 ms."""
    memory = "/dev/shm"  # noqa: S108 - a folder of its own is made in it
    parent = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def contents(path: Path) -> list[tuple[str, bytes, int | None]]:
    """(hash, response, cost) of all answers in a file."""
    with Journal(path) as journal:
        return [(one.hash, one.body, one.cost_micro) for one in journal.all_answers()]
