"""Copies of a journal: a backup while others write, and an export to JSONL."""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.files import check_file, parse_json
from kdfast.teacher.api.journal.database import sync_folder
from kdfast.teacher.api.journal.entries import Answer
from kdfast.teacher.api.journal.faults import rollback_file, translated
from kdfast.teacher.api.journal.reading import Reader
from kdfast.teacher.api.journal.request import Request, canonical_json


def backup(journal: Reader, target: Path) -> None:
    """Writes a whole copy of a journal, also while other processes write to it; they wait meanwhile.

    Args:
        journal: the open journal.
        target: the copy; it appears whole, and replaces an older copy.

    Raises:
        ValueError: it is the journal itself.
        DataError: the journal is damaged; an older copy is kept.
        OSError: it cannot be written.
    """
    _check_target(journal, target)
    if rollback_file(target).exists():
        raise DataError(f"{rollback_file(target).name} is there: this file is in use or damaged", str(target))
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)
    try:
        with translated(target):
            copy = sqlite3.connect(beside, isolation_level=None)
            try:
                journal.database.copy_to(copy)
                found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
            finally:
                copy.close()
        if found != "ok":
            raise DataError(
                f"the journal is damaged ({found}); the copy was not kept", str(journal.database.path)
            )
        _sync_file(beside)
        beside.replace(target)
        sync_folder(target.parent)
    finally:
        beside.unlink(missing_ok=True)
        rollback_file(beside).unlink(missing_ok=True)


def export(journal: Reader, target: Path) -> int:
    """Writes all final answers as JSONL, one object a line, by the requests' order, then hash.

    Args:
        journal: the open journal.
        target: the file; it appears whole.

    Returns:
        the number of lines.

    Raises:
        ValueError: it is the journal itself.
        DataError: the journal is damaged.
        OSError: the file cannot be written.
    """
    _check_target(journal, target)
    beside, count = target.with_name(f".{target.name}.{os.getpid()}.tmp"), 0
    try:
        with beside.open("wb") as file:
            for line in exported_lines(journal):
                file.write(line + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        error.filename, error.filename2 = str(target), None  # Python names no file when the disk is full
        raise
    finally:
        beside.unlink(missing_ok=True)
    return count


def exported_lines(journal: Reader) -> Iterator[bytes]:
    """The lines that `export` writes, without line ends.

    Raises:
        DataError: the journal is damaged.
    """
    for answer in journal.all_answers():
        request = journal.request(answer.hash)
        if request is not None:  # always so: a foreign key of the answer
            yield canonical_json(_exported(request, answer))


def _exported(request: Request, answer: Answer) -> dict[str, Any]:
    return {
        "request": answer.hash,
        "order": answer.order,
        "sample": answer.sample,
        "endpoint": request.endpoint,
        "context": dict(request.context),
        "body": dict(request.body),
        "status": answer.status,
        "headers": answer.headers,
        **_decoded(answer.body),
        "response_digest": answer.digest,
        "usage": answer.usage,
        "cost_micro": answer.cost_micro,
        "latency_ms": answer.latency_ms,
        "verdict": answer.verdict and {"kind": answer.verdict.kind, "reason": answer.verdict.reason},
    }


def _decoded(body: bytes) -> dict[str, Any]:
    """The body as JSON if it is strict JSON, else as text if it is UTF-8, else in base64."""
    try:
        value = parse_json(body)
        canonical_json(value)  # half of a surrogate pair can be parsed, but not written
    except ValueError:
        pass
    else:
        return {"response": value}
    try:
        return {"response_text": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"response_base64": base64.b64encode(body).decode("ascii")}


def _check_target(journal: Reader, target: Path) -> None:
    check_file(target)
    if target.resolve() == journal.database.path:
        raise ValueError(f"a journal cannot be copied onto itself: {target}")


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
