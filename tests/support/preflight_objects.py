"""A small project with everything on, as the preflight's checks see it; and what a broken part of it is told.

Making it takes some seconds, so it is made once a process. A test breaks a copy: `clean().replaced(batches=[broken])`.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tiny_run

from kdfast.config import Config, load_config
from kdfast.recipes.preflight.check import Check, Finding
from kdfast.recipes.preflight.facts import PreflightRequest
from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.made.makers import MAKERS
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.preflight.table import CHECKS


@functools.cache
def folder() -> Path:
    """Where the project of this process is; it is removed when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="kdfast-preflight-test-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def write_project(directory: Path, **changes: Any) -> Config:
    """Writes a project with both latency losses, QAT and a held-out file; `changes` as in `tiny_run.write_config`."""
    directory.mkdir(parents=True, exist_ok=True)
    keys: dict[str, Any] = {
        "train__eval_prompts": 2,
        "train__eval_irrelevance_prompts": 1,
        "train__num_steps": 200,
        "kd__early_tool_preamble_weight": 0.001,
    }
    path = tiny_run.write_config(directory, **keys | changes)
    return load_config(path, ["quant.enabled=true", "gates.ttfa_p95_tokens=200"])


@functools.cache
def clean() -> Objects:
    """The objects of a project in which every check passes, or has nothing to look at."""
    return objects_of(write_project(folder() / "project"), folder() / "work")


def objects_of(config: Config, work: Path, request: PreflightRequest | None = None) -> Objects:
    """The objects of a project."""
    work.mkdir(parents=True, exist_ok=True)
    return Objects(MAKERS, {"config": config, "request": request or PreflightRequest(), "work": work})


def find(name: str) -> Check:
    """The check of this name."""
    return next(check for check in CHECKS if check.name == name)


def look(name: str, objects: Objects) -> Finding:
    """What a check finds; of several findings the first that is no pass."""
    found = look_once(find(name), objects)
    return next((one for one in found if one.status != "pass"), found[0])


def failing(objects: Objects, *more: str) -> list[str]:
    """The checks that fail: of all cheap ones, and of these."""
    chosen = [check for check in CHECKS if not check.slow or check.name in more]
    return [check.name for check in chosen if any(one.status == "fail" for one in look_once(check, objects))]


def assert_only_fails(name: str, objects: Objects) -> Finding:
    """This check fails, and no other cheap one does."""
    assert failing(objects, name) == [name]
    return look(name, objects)
