"""Which reports may be compared by time: those of one engine only."""

from __future__ import annotations

from typing import Any

import pytest
from speed_reports import gate, report

TORCH = (report(), report(export=False), report(hardware__engine="torch", export=False))
EXPORTS = (
    report(export=True),
    report(export=True, hardware__engine="llama.cpp"),
    report(hardware__engine="llama.cpp"),
)


def reason(one: Any, other: Any) -> str:
    found = gate("ttft_p50", one, other, allow_cross_hardware=True)
    return str(found.reason) if found.status == "skipped" else ""


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("torch", TORCH)
def test_times_of_an_export_are_never_held_against_those_of_pytorch(torch: Any, export: Any) -> None:
    """Not even where a report does not say what ran: older ones are all of PyTorch."""
    for sides in ((torch, export), (export, torch), ([torch, export], torch)):
        assert reason(*sides).startswith("export_mismatch: ")


@pytest.mark.parametrize("sides", [TORCH, EXPORTS[:2]])
def test_times_of_one_engine_are_compared(sides: Any) -> None:
    assert {reason(one, other) for one in sides for other in sides} == {""}


def test_the_engines_are_named() -> None:
    sides = (report(export=True, hardware__engine=name) for name in ("other", "llama.cpp"))
    assert reason(*sides) == "export_mismatch: other against llama.cpp"


def test_answers_are_compared_across_engines() -> None:
    assert gate("false_call_rate", EXPORTS[1], TORCH[0]).status == "passed"
