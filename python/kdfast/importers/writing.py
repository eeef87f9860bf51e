"""How an importer writes its files: all of them, or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdfast.errors import DataError

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def to_line(value: Any) -> str:
    """`value` as one line of compact JSON, without the line's end.

    Example:
        >>> to_line({"messages": [{"role": "user", "content": "Grüß Gott"}]})
        '{"messages":[{"role":"user","content":"Grüß Gott"}]}'
    """
    return _ENCODER.encode(value)


def check_directory(directory: Path) -> None:
    """Refuses an output that is a file, before any work is done.

    Raises:
        DataError: a file is there.
    """
    if directory.exists() and not directory.is_dir():
        raise DataError("the output must be a directory, and a file is there", str(directory))


def write_files(directory: Path, files: Mapping[str, Iterable[str]]) -> dict[str, Path]:
    r"""Writes each file under a temporary name, flushed to the disk; renames them only when all are complete.

    Args:
        directory: where the files go; created if missing.
        files: by name the lines of each file, without their ends.

    Returns:
        The path of each file.

    Raises:
        DataError: `directory` is a file.
        OSError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> path = write_files(Path(tempfile.mkdtemp()) / "new", {"a.jsonl": ["{}", "[]"]})["a.jsonl"]
        >>> path.read_text()
        '{}\n[]\n'
    """
    check_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {name: directory / name for name in files}
    temporary = {name: directory / f".{name}.{os.getpid()}.tmp" for name in files}
    try:
        for name, lines in files.items():
            with temporary[name].open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(line + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        for name, path in paths.items():
            temporary[name].replace(path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return paths
