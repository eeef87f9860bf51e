"""Claiming a run folder: one process trains in it at a time, and a start that is refused leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from kdfast.errors import ConfigError
from kdfast.runs.folder import RunFolder

_HELD = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Claim:
    """A run folder, locked for this process while the block runs.

    The folder is made if it is missing. What was made goes away again with the block, unless `keep` was called. The
    lock is the operating system's: it ends with the process, however that ends.

    Attributes:
        warning: why nothing keeps a second process out; "" = the lock does.

    Examples:
        >>> import tempfile
        >>> folder = RunFolder(Path(tempfile.mkdtemp()) / "runs" / "first")
        >>> with Claim(folder):
        ...     folder.path.is_dir()
        True
        >>> folder.path.parent.exists()
        False
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.warning = folder, ""
        self._made: list[Path] = []
        self._handle: int | None = None
        self._kept = False

    def keep(self) -> None:
        """The start succeeded: the folder stays."""
        self._kept = True

    def __enter__(self) -> Self:
        missing = [path for path in (self.folder.path, *self.folder.path.parents) if not path.exists()]
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self._made = missing
        with ExitStack() as refused:
            refused.callback(self._remove_made)
            self._lock()
            refused.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self.folder.lock.unlink(missing_ok=True)  # while it is held: see `_lock`
            os.close(self._handle)
            self._handle = None
        if not self._kept:
            self._remove_made()

    def _lock(self) -> None:
        """Opens and locks the file, again if its former holder removed it in between."""
        while True:
            handle = os.open(self.folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as cause:
                text = os.read(handle, 200).decode("utf-8", "replace").strip()
                os.close(handle)
                if cause.errno in _NO_LOCKS:
                    self.warning = (
                        "this file system has no locks: nothing keeps a second process from training in "
                        f"{self.folder.path}"
                    )
                    return
                if cause.errno not in _HELD:
                    raise
                raise running(self.folder, text) from None
            if _is_still(self.folder.lock, handle):
                break
            os.close(handle)
        self._handle = handle
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode())

    def _remove_made(self) -> None:
        for path in self._made:
            try:
                path.rmdir()
            except OSError:
                return  # something else is in it by now


def running(folder: RunFolder, who: str) -> ConfigError:
    """The error for a folder that another process trains in; `who` is what that process wrote into its lock."""
    return ConfigError(
        f"io.run_dir: a run is going on there ({who or 'another process holds its lock'}); wait for its end or stop "
        f"it, or choose another folder: {folder.path}"
    )


def check_not_running(folder: RunFolder) -> None:
    """Refuses a folder that another process trains in; changes nothing.

    Raises:
        ConfigError: a process holds the lock.
    """
    try:
        handle = os.open(folder.lock, os.O_RDWR)
    except OSError:
        return  # no lock, or one that cannot be opened: `Claim` says so
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        if cause.errno in _HELD:
            raise running(folder, os.read(handle, 200).decode("utf-8", "replace").strip()) from None
    finally:
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    """Whether a path still names the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
