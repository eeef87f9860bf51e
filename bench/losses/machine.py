"""What the figures were taken on and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch
from bench.losses.measure import ALL


def machine(device: str, threads: int) -> dict[str, str | int]:
    """Processor, memory and software."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    found: dict[str, str | int] = {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": threads,
    }
    if device != "cpu":
        found["device"] = torch.cuda.get_device_name()
    return found


def versions(distillkit: Path | None) -> dict[str, str]:
    """Of every contender's package; a checkout's is its commit."""
    found = {}
    for package in sorted({contender.package for contender in ALL.values()} - {"kdfast", "distillkit"}):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    if distillkit is not None:
        command = ["git", "-C", str(distillkit), "log", "-1", "--format=%h of %cs"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        found["distillkit"] = commit or "not a git checkout"
    return found
