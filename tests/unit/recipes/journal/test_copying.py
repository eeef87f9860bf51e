"""What `kdfast journal export` and `backup` write, and what they do not replace."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import journals
import pytest

from kdfast.errors import ConfigError
from kdfast.recipes.journal import copying

Printed = Callable[[], list[str]]


def test_export(path: Path, folder: Path, printed: Printed) -> None:
    out = folder / "new" / "out.jsonl"
    copying.export(path, out)
    assert printed() == [f"exported 4 answers, one a line: {out}"]
    assert [json.loads(line)["order"] for line in out.read_text().splitlines()] == [0, 1, 2, 6]


def test_backup(path: Path, folder: Path, printed: Printed) -> None:
    out = folder / "new" / "copy.db"
    for _ in range(2):
        copying.backup(path, out)
        assert printed() == [f"copied 7 requests with all answers, checked: {out}"]
    assert journals.contents(out) == journals.contents(path)


def test_what_is_in_the_way_is_not_replaced(path: Path, folder: Path) -> None:
    records = folder / "records.jsonl"
    records.write_text("{}\n")
    shutil.copy(path, folder / "copy.db")
    os.link(path, folder / "same.db")
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    for write, out in (
        (copying.backup, records),
        (copying.export, folder / "copy.db"),
        (copying.backup, path),
        (copying.export, path),
        (copying.backup, folder / "same.db"),
        (copying.export, records / "below.jsonl"),
    ):
        with pytest.raises(ConfigError, match=r"^--out: "):
            write(path, out)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before
