"""Numbers that were recorded once, and how near a new run must come to them.

Where the machine is the one that recorded them (same CPU model, torch and number of threads), they must be equal to the
last bit; elsewhere within 1e-5, since other processors add in another order.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "golden"


def machine(threads: int) -> dict[str, Any]:
    """What the last bits of a run depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = (line.partition(":")[::2] for line in info.read_text(encoding="utf-8").splitlines())
        facts = {name.strip(): value.strip() for name, value in pairs}
        cpu = ", ".join(facts.get(name, "?") for name in ("model name", "cpu family", "model"))
    capability = torch.backends.cpu.get_cpu_capability()
    return {"cpu": f"{cpu}, {capability}", "torch": torch.__version__, "threads": threads}


def load(name: str) -> dict[str, Any]:
    """A file of `tests/golden`."""
    document: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return document


def assert_steps(found: list[dict[str, Any]], wanted: list[dict[str, Any]], *, exact: bool) -> None:
    """Steps of `metrics.jsonl`, times left out, are those that were recorded; further names may have come."""
    assert [step["step"] for step in found] == [step["step"] for step in wanted]
    for here, there in zip(found, wanted, strict=True):
        for name, value in there.items():
            if exact or not isinstance(value, float):
                assert here[name] == value, (here["step"], name)
            else:
                assert here[name] == pytest.approx(value, rel=1e-5, abs=1e-7), (here["step"], name)
