"""Files and directories that appear whole or not at all, and the one way to read and write a JSON file."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError

from kdfast.errors import DataError


def _sync(path: Path) -> None:
    """Forces a file, or the list of files of a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_place(beside: Path, directory: Path, former: Path) -> None:
    if directory.exists():
        directory.rename(former)
    try:
        beside.rename(directory)
    except OSError:
        if former.exists():
            former.rename(directory)
        raise


@contextmanager
def written_whole(directory: Path) -> Iterator[Path]:
    """A temporary directory beside the given one that takes its name when the block ends without an error.

    Everything in it is on the disk before the rename. An existing directory of that name is replaced; parents are made.
    After an error nothing is left. After a kill a hidden directory may be left: see `put_back` and `remove_leftovers`.

    Args:
        directory: the final name.

    Yields:
        the directory to write into.

    Raises:
        OSError: it cannot be written (an error of the safetensors library is turned into one).

    Example:
        >>> import tempfile
        >>> parent = Path(tempfile.mkdtemp())
        >>> with written_whole(parent / "made") as beside:
        ...     _ = (beside / "file").write_text("all of it")
        >>> [path.name for path in parent.iterdir()]
        ['made']
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    former = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        for path in (*beside.rglob("*"), beside):
            _sync(path)
        _take_place(beside, directory, former)
        _sync(directory.parent)
    except SafetensorError as cause:
        raise _as_os_error(cause, directory) from cause
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def check_file(path: Path) -> None:
    """Checks, before the work, that a file can be written after it; makes its folder.

    Args:
        path: the file.

    Raises:
        OSError: it is a directory, or its folder cannot be made.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)


def write_text_whole(path: Path, text: str | Iterable[str]) -> None:
    """Writes a text file whole, or not at all; folders are made.

    Args:
        path: the file; replaced. After an error it is as it was.
        text: written as UTF-8; of several texts, one after the other.

    Raises:
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "file.txt"
        >>> write_text_whole(path, "all of it")
        >>> path.read_text()
        'all of it'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # Python names no file when the disk is full
        raise
    finally:
        beside.unlink(missing_ok=True)


def parse_json(content: bytes | str) -> Any:
    """Parses strict JSON: UTF-8, neither NaN nor Infinity.

    Raises:
        ValueError: it is not that; the message says what is wrong.

    Examples:
        >>> parse_json(b'{"loss": 0.5}')
        {'loss': 0.5}
        >>> parse_json('{"loss": NaN}')
        Traceback (most recent call last):
        ...
        ValueError: NaN is not JSON
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_document(
    path: str | os.PathLike[str],
    *,
    name: str,
    remedy: str,
    kinds: Collection[str] = (),
    version: str | None = None,
) -> dict[str, Any]:
    """Reads a JSON file that holds one object.

    Args:
        path: the file.
        name: what the file should be, for messages, such as "speed report".
        remedy: what to do when it is damaged, for messages.
        kinds: the accepted values of its key `kind`; () = the key is not looked at.
        version: its key `schema_version` must have the same major version; None = the key is not looked at.

    Raises:
        DataError: it is no strict JSON, no object, or of another kind or version; names the file and the remedy.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "speed.json"
        >>> write_document(path, {"kind": "speed", "schema_version": "1.2"})
        >>> read_document(path, name="speed report", remedy="measure again", kinds=["speed"], version="1.0")
        {'kind': 'speed', 'schema_version': '1.2'}
    """
    target, article = Path(path), "an" if name[0] in "aeiou" else "a"
    try:
        document = parse_json(target.read_bytes())
    except ValueError as error:
        raise DataError(f"not a readable {name} ({error}); {remedy}", str(target)) from None
    problem = _document_problem(document, kinds, version)
    if problem:
        raise DataError(f"not {article} {name}: {problem}; {remedy}", str(target))
    checked: dict[str, Any] = document
    return checked


def write_document(
    path: str | os.PathLike[str],
    document: Mapping[str, Any],
    *,
    sort_keys: bool = False,
    ensure_ascii: bool = False,
) -> None:
    """Writes strict JSON, indented, whole or not at all; folders are made.

    Args:
        path: the file; replaced. After an error it is as it was.
        document: JSON values.
        sort_keys: write keys in alphabetical order.
        ensure_ascii: write characters beyond ASCII as escapes.

    Raises:
        ValueError: a number is NaN or infinite.
        OSError: it cannot be written.
    """
    text = json.dumps(document, ensure_ascii=ensure_ascii, indent=1, sort_keys=sort_keys, allow_nan=False)
    write_text_whole(Path(path), text + "\n")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _document_problem(document: object, kinds: Collection[str], version: str | None) -> str | None:
    if not isinstance(document, dict):
        return f"must be an object, got {type(document).__name__}"
    if kinds and document.get("kind") not in kinds:
        return f"kind must be {' or '.join(map(repr, kinds))}, got {document.get('kind')!r}"
    found = document.get("schema_version")
    if version is None or (isinstance(found, str) and _major(found) == _major(version)):
        return None
    return f"schema_version must be {version!r}, got {found!r}"


def _major(version: str) -> str:
    return version.partition(".")[0]


def remove_leftovers(parent: Path, name: str) -> None:
    """Removes the hidden directories that a kill inside `written_whole` left, after `put_back`.

    Args:
        parent: where to look.
        name: a pattern of the final names, such as `step_*`.
    """
    put_back(parent, name)
    for kind in ("tmp", "old"):
        for path in parent.glob(f".{name}.{kind}-*"):
            shutil.rmtree(path, ignore_errors=True)


def put_back(parent: Path, name: str) -> None:
    """Gives directories their names again that a kill took away, between the two renames of a replacement.

    Args:
        parent: where to look.
        name: a pattern of the final names, such as `step_*`.
    """
    for former in sorted(parent.glob(f".{name}.old-*")):
        directory = parent / former.name.removeprefix(".").rpartition(".old-")[0]
        if not directory.exists():
            former.rename(directory)


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """The operating system's error that an error of the safetensors library reports in its text."""
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return OSError(f"cannot write {path}: {error}")
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path))
