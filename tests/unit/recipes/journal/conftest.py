"""A journal in which every state of an attempt occurs, and what a command printed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import asked_journal
import journals
import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    with journals.quick_folder() as made:
        yield made


@pytest.fixture
def path(folder: Path) -> Path:
    """The journal as a job left it that was killed: an attempt is in flight."""
    made, copy = folder / "answers.db", folder / "killed.db"
    with asked_journal.build(made):
        shutil.copy(made, copy)
    copy.replace(made)
    return made


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Gives what was printed on stdout since the last time, spaces joined. Nothing may be on stderr."""
    monkeypatch.setenv("COLUMNS", "80")  # lines are wrapped as here, whatever the terminal

    def lines() -> list[str]:
        captured = capsys.readouterr()
        assert captured.err == ""
        return [" ".join(line.split()) for line in captured.out.splitlines()]

    return lines
