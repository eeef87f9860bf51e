"""Who holds a lease on a request, until when, and whether that process still lives."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_GONE_STATES = ("Z", "X")
"""States of a Linux process that has ended and whose parent has not asked for its exit code."""


def this_process() -> str:
    """A name for this process that no other process has: `MACHINE/PID/START/RANDOM`."""
    return f"{_machine()}/{os.getpid()}/{_start(os.getpid()) or ''}/{secrets.token_hex(4)}"


def is_gone(owner: str) -> bool:
    """Whether the process of that name has surely ended; False for one on another machine or in another container.

    Examples:
        >>> is_gone(this_process())
        False
        >>> is_gone("another machine/1/1/00000000")
        False
    """
    parts = owner.split("/")
    if len(parts) != 4 or parts[0] != _machine() or not parts[1].isdigit():
        return False
    pid, start = int(parts[1]), parts[2]
    if start:
        return _start(pid) != start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@dataclass(frozen=True)
class Leases:
    """For how long a process may keep a request to itself.

    Attributes:
        seconds: length of a lease. It must be longer than a request can take, with its time-out: when a lease ends,
            the request counts as one whose outcome is unknown, and another process may send it again.
        owner: the name of the process.
        clock: gives the time in seconds since 1970.
    """

    seconds: float = 900.0
    owner: str = field(default_factory=this_process)
    clock: Callable[[], float] = time.time

    def now_ms(self) -> int:
        """The time in milliseconds."""
        return round(self.clock() * 1000)


def _machine() -> str:
    """A name of the running system; processes that share it see each other's numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        # Containers of one machine have process numbers of their own.
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot, namespace = platform.node(), ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def _start(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if it has ended or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before ")" may hold spaces
    return None if len(fields) < 20 or fields[0] in _GONE_STATES else fields[19]
