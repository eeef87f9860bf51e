"""A journal in a quick folder, opened by two processes that share a clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import journals
import pytest
from journals import Clock

from kdfast.teacher.api.journal import Journal


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path() -> Iterator[Path]:
    with journals.quick_folder() as folder:
        yield folder / "answers.db"


@pytest.fixture
def journal(path: Path, clock: Clock) -> Iterator[Journal]:
    with Journal(path, leases=journals.leases("one", clock), secrets=["sk-secret"]) as opened:
        yield opened


@pytest.fixture
def other(journal: Journal, path: Path, clock: Clock) -> Iterator[Journal]:
    """The same file, opened by another process."""
    with Journal(path, leases=journals.leases("two", clock)) as opened:
        yield opened


@pytest.fixture
def folder() -> Iterator[Path]:
    with journals.quick_folder() as made:
        yield made


@pytest.fixture
def filled(folder: Path) -> Path:
    """A closed journal with 40 answers, of some 30 pages."""
    made = folder / "answers.db"
    noise = random.Random(0)
    with Journal(made) as journal:
        for number in range(40):
            got = journals.Response(200, {}, noise.randbytes(3000), 1)
            journal.finish_attempt(
                journals.begun(journal, journals.request(number)), got, final=True, cost_micro=number
            )
    return made
