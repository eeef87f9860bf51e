"""The machine as far as this process may use it, and the key that says which measurements can be compared."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdfast.config.choices import DTYPES

ROOT = Path("/")
LIBRARIES = ("kdfast", "transformers", "numpy")
_UNLIMITED_BYTES = 2**60  # cgroups version 1 writes about 2^63 for "no limit"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A machine, seen from one process.

    Attributes:
        cpu_model: the CPU's name, with family, model and stepping if known (in clouds, different CPUs share a name).
        cpu_features: the widest vector instructions that torch uses.
        cores: how many cores this process may use: its affinity mask, limited by its control group (maybe 1.5).
        memory_bytes: how much memory this process may use; None = unknown.
        device: where the model ran: cpu, cuda or mps.
        gpu: the GPU's name; None = no GPU was used.
        gpu_driver: the version of the GPU's driver; None = unknown, or no GPU was used.
        os: name and version of the operating system.
        torch_threads: number of CPU threads of the engine: torch's, or llama.cpp's.
        dtype: the type of the weights: fp32, bf16, ...; "gguf" = as the file of an export has them.
        versions: the versions of Python and the libraries.
        load_average: mean number of runnable processes over the last 1, 5 and 15 minutes; None = unknown.
        engine: what computed: "torch" or "llama.cpp".
    """

    cpu_model: str
    cpu_features: str
    cores: float
    memory_bytes: int | None
    device: str
    gpu: str | None
    gpu_driver: str | None
    os: str
    torch_threads: int
    dtype: str
    versions: dict[str, str]
    load_average: tuple[float, ...] | None
    engine: str = "torch"

    @property
    def key(self) -> str:
        """Times can be compared only if this text is equal. Versions, memory and load are not part of it."""
        cores = f"{self.cores:g} cores"
        threads = f"{self.torch_threads} threads"
        parts = [self.cpu_model, self.cpu_features, cores, threads, self.gpu or self.device, self.dtype]
        return " / ".join(parts if self.engine == "torch" else [*parts, self.engine])

    def to_json(self) -> dict[str, Any]:
        """The section `hardware` of a report."""
        return {"key": self.key, **asdict(self)}


def describe_hardware(device: Any, dtype: Any) -> Hardware:
    """Describes the machine that this process runs on.

    Args:
        device: the `torch.device` that the model is on.
        dtype: the `torch.dtype` of the model's weights.
    """
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Hardware(
        cpu_model=cpu_model(),
        cpu_features=torch.backends.cpu.get_cpu_capability(),
        cores=usable_cores(),
        memory_bytes=usable_memory(),
        device=device.type,
        gpu=gpu,
        gpu_driver=nvidia_driver() if gpu else None,
        os=platform.platform(),
        torch_threads=torch.get_num_threads(),
        dtype=_DTYPES.get(str(dtype), str(dtype).removeprefix("torch.")),
        versions={**_versions(), "torch": torch.__version__},  # with its build, such as +cpu
        load_average=tuple(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    )


def describe_llama_cpp(threads: int, version: str | None) -> Hardware:
    """Describes the machine that this process runs an export on, in llama.cpp on the CPU.

    Exports of all types have the same key: whether one of 4 bits may take the place of one of 8 is for a gate to say.

    Args:
        threads: llama.cpp's.
        version: the version of the package xllamacpp; None = unknown.
    """
    import torch

    here = describe_hardware(torch.device("cpu"), torch.float32)
    versions = here.versions if version is None else {**here.versions, "xllamacpp": version}
    return replace(here, torch_threads=threads, dtype="gguf", engine="llama.cpp", versions=versions)


_DTYPES = {f"torch.{full}": name for name, full in DTYPES.items()}


def cpu_model(root: Path = ROOT) -> str:
    """The CPU's name; "unknown" if the system does not tell.

    Args:
        root: the directory that holds `proc`.
    """
    entries: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        entries.setdefault(name.strip().lower(), value.strip())
    numbers = [entries.get(name, "") for name in ("cpu family", "model", "stepping")]
    if "model name" in entries:
        return f"{entries['model name']} ({'.'.join(numbers)})" if all(numbers) else entries["model name"]
    arm = [entries.get(f"cpu {name}", "") for name in ("implementer", "part", "revision")]
    if all(arm):
        return f"ARM ({'.'.join(arm)})"
    return _apple_cpu() or platform.processor() or "unknown"


def _apple_cpu() -> str | None:
    if platform.system() != "Darwin":
        return None
    asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None


def usable_cores(root: Path = ROOT) -> float:
    """How many cores this process may use: its affinity mask, limited by the quotas of its control groups.

    Args:
        root: the directory that holds `proc` and `sys`.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(affinity), *_quotas(root)])


def _quotas(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        quota, _, period = _read(group / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = (_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():  # else "max", or -1: no limit
            yield int(quota) / int(period)


def usable_memory(root: Path = ROOT) -> int | None:
    """How many bytes this process may use: the machine's memory, limited by its control groups; None = unknown."""
    limits = [
        int(text)
        for group in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(group / name).strip()).isdigit() and int(text) < _UNLIMITED_BYTES
    ]
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if all(name in getattr(os, "sysconf_names", {}) for name in names):
        limits.append(math.prod(os.sysconf(name) for name in names))
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's control groups (version 1 and 2), from its own up to the root."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if number != "0" or controllers:
            if controller not in controllers.split(","):
                continue
            mount /= controllers if (mount / controllers).is_dir() else controller
        group = mount / path.strip("/")
        yield group
        while group != mount:
            group = group.parent
            yield group


def nvidia_driver(root: Path = ROOT) -> str | None:
    """The version of NVIDIA's kernel driver; None = there is none."""
    words = _read(root / "proc/driver/nvidia/version").partition("\n")[0].split()
    return next((word for word in words if word[0].isdigit()), None)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _read(path: Path) -> str:
    """The text of a kernel file; "" if it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
