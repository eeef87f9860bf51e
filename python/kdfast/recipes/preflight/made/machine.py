"""The machine as a run will use it: memory, GPUs, cores, and the disks of all places that it writes to."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kdfast.config import Config
from kdfast.recipes.teach.plan import asks_api
from kdfast.teacher.api.journal.mounts import check_local

TRIAL_BYTES = 8_000_000
"""What is written to measure a disk; less on a slow one."""

_PIECE = 1_000_000
_TRIAL_SECONDS = 0.3
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_ROOT = Path("/")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk below a place that a run writes to.

    Attributes:
        path: the place; it need not exist yet.
        free: bytes that this user may still write.
        write_mb_s: how fast it writes so that a power cut loses nothing, in MB (10^6 bytes) a second; None = unknown.
        writable: whether a file can be made there.
        problem: why not; "" = it can.
        device: places with the same number share the disk, and so its room.
        locks: whether files can be locked there.
        network: why SQLite's locks cannot be trusted there; "" = they can.
        ahead_seconds: how far the time of a file just written is ahead of this machine's clock.
    """

    path: Path
    free: int
    write_mb_s: float | None
    writable: bool
    problem: str = ""
    device: int = 0
    locks: bool = True
    network: str = ""
    ahead_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run finds here.

    Attributes:
        memory_total: bytes that this process may use at most, limits of its control groups included; 0 = unknown.
        memory_available: bytes that are free for it now; 0 = unknown.
        gpu_memory: bytes of each NVIDIA GPU, or AMD one with ROCm.
        gpu_names: their names.
        cpus: cores that this process may use, at least 1.
        disks: config key of a place -> its disk.
        clock: the time that this machine believes in, in Unix seconds.
        mps: whether Apple's GPU is there.
    """

    memory_total: int
    memory_available: int
    gpu_memory: tuple[int, ...]
    gpu_names: tuple[str, ...]
    cpus: int
    disks: Mapping[str, Disk]
    clock: float = field(default_factory=time.time)
    mps: bool = False


def look_at_machine(config: Config, work: Path) -> Machine:
    """Looks at the machine; writes up to 8 MB to each disk, and removes it again.

    Args:
        config: names the places, by its keys.
        work: the scratch folder, whose disk must hold the small run.
    """
    from kdfast.speed.hardware import usable_cores, usable_memory  # loads torch

    gpus, mps = _gpus()
    return Machine(
        memory_total=usable_memory() or 0,
        memory_available=available_memory(),
        gpu_memory=tuple(size for _, size in gpus),
        gpu_names=tuple(name for name, _ in gpus),
        cpus=max(int(usable_cores()), 1),
        disks={key: look_at_disk(path) for key, path in places(config, work).items()},
        mps=mps,
    )


def places(config: Config, work: Path) -> dict[str, Path]:
    """The folders that preflight, `kdfast teach` and training write to, by the config key that names them.

    Args:
        config: the config.
        work: the scratch folder.
    """
    data, teacher = config.data, config.teacher
    found = {"io.run_dir": config.io.run_dir}
    if teacher.store is not None:
        found["teacher.store"] = teacher.store
    if teacher.files is not None:
        found["teacher.out"] = teacher.files.out.parent
        if asks_api(config):
            found["teacher.journal"] = teacher.files.journal.parent
    if data.cache is not None:
        found["data.cache"] = data.cache
    else:
        found["data.train"] = data.train_files[0].parent
        if data.validation is not None:
            found["data.validation"] = data.validation.parent
    return {**found, "the scratch folder": work}


def look_at_disk(path: Path) -> Disk:
    """The disk below a folder that need not exist.

    Example:
        >>> disk = look_at_disk(Path(tempfile.gettempdir()) / "not" / "there")
        >>> disk.writable, disk.write_mb_s > 0
        (True, True)
    """
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        return Disk(path=path, free=0, write_mb_s=None, writable=False, problem=f"{there} is a file")
    try:
        free, device = shutil.disk_usage(there).free, there.stat().st_dev
        network = _network(there)
    except OSError as error:
        return Disk(path=path, free=0, write_mb_s=None, writable=False, problem=str(error))
    try:
        speed, ahead, locks = _try_writing(there)
    except OSError as error:
        full = error.errno in _FULL  # by a quota, maybe, of which `free` knows nothing
        return Disk(
            path=path,
            free=0 if full else free,
            write_mb_s=None,
            writable=full,
            problem=error.strerror or str(error),
            device=device,
            network=network,
        )
    return Disk(
        path=path,
        free=free,
        write_mb_s=speed,
        writable=True,
        device=device,
        locks=locks,
        network=network,
        ahead_seconds=ahead,
    )


def _try_writing(folder: Path) -> tuple[float, float, bool]:
    """MB a second, seconds that the file is ahead of the clock, and whether it could be locked."""
    with tempfile.TemporaryFile(dir=folder, prefix=".kdfast-preflight-") as file:
        locks = _can_lock(file.fileno())
        piece, written = os.urandom(_PIECE), 0  # zeros would be compressed by some file systems
        started = time.perf_counter()
        while written < TRIAL_BYTES:
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            written += _PIECE
            if time.perf_counter() - started > _TRIAL_SECONDS:
                break
        seconds = time.perf_counter() - started
        ahead = os.fstat(file.fileno()).st_mtime - time.time()
    return written / 1e6 / max(seconds, 1e-9), ahead, locks


def _can_lock(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    fcntl.lockf(handle, fcntl.LOCK_UN)
    return True


def _network(folder: Path) -> str:
    from kdfast.errors import DataError

    try:
        check_local(folder)
    except DataError as error:
        return error.message
    return ""


def _gpus() -> tuple[list[tuple[str, int]], bool]:
    """(name, bytes of memory) of each GPU that torch sees, and whether there is Apple's."""
    import torch

    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(number)
        found.append((str(properties.name), int(properties.total_memory)))
    return found, torch.backends.mps.is_available()


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that are free for this process now, limits of its control groups included; 0 = the system does not say.

    Args:
        root: the directory that holds `proc` and `sys`.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    rooms = [int(found[1]) * 1024] if found else []
    for group in _memory_groups(root):
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, now = _read(group / most).strip(), _read(group / used).strip()
            if limit.isdigit() and now.isdigit():
                cache = re.search(
                    r"^(?:total_)?inactive_file (\d+)", _read(group / "memory.stat"), re.MULTILINE
                )
                # Cached files count as used, but the kernel gives them up when memory is needed.
                rooms.append(max(int(limit) - int(now) + (int(cache[1]) if cache else 0), 0))
    return min(rooms, default=0)


def _memory_groups(root: Path) -> Iterator[Path]:
    """The directories of this process's control groups (version 1 and 2), from its own up to the root."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if number != "0" or controllers:
            if "memory" not in controllers.split(","):
                continue
            mount /= "memory"
        group = mount / path.strip("/")
        yield group
        while group != mount:
            group = group.parent
            yield group


def _read(path: Path) -> str:
    """The text of a kernel file; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
