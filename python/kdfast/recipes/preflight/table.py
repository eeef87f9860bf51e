"""All checks (TEMPORARY: modules that are not there yet are left out)."""

from __future__ import annotations

import importlib
from pathlib import Path

from kdfast.recipes.preflight.check import Check

_NAMES = ("config", "machine", "data", "calls", "tokens", "batch", "model", "losses", "learning", "teacher", "run", "qat", "checkpoint", "speed", "export", "warnings")
CHECKS: tuple[Check, ...] = tuple(
    check
    for name in _NAMES
    if (Path(__file__).parent / f"checks_{name}.py").exists()
    for check in getattr(importlib.import_module(f"kdfast.recipes.preflight.checks_{name}"), "CHECKS", ())
)
