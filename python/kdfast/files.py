"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


def _sync(path: Path) -> None:
    """Forces a file's, or a directory's list of, bytes to the disk."""
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

    Everything in it is on the disk before the rename. A directory that is there already is replaced; parents
    are made. After an error nothing is left; after a kill a hidden directory, which `remove_leftovers` knows.

    Args:
        directory: the final name.

    Yields:
        the directory to write into.

    Raises:
        OSError: it cannot be written (also where the safetensors library says so in its own way).

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
    """Makes the folder of a file that is to be written: said before the work, not after it.

    Args:
        path: the file.

    Raises:
        OSError: it is a directory, or its folder cannot be made.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Writes a text file whole, or not at all; folders are made.

    Args:
        path: the file; replaced. After an error it is as it was.
        text: written as UTF-8.

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
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # a full disk is reported without a name
        raise
    finally:
        beside.unlink(missing_ok=True)


def remove_leftovers(parent: Path, name: str) -> None:
    """Removes what writers of `written_whole` left when they were killed.

    Args:
        parent: where to look.
        name: pattern of the final names, such as `step_*`.
    """
    for kind in ("tmp", "old"):
        for path in parent.glob(f".{name}.{kind}-*"):
            shutil.rmtree(path, ignore_errors=True)


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """The operating system's error inside one of the safetensors library."""
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return OSError(f"cannot write {path}: {error}")
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path))
