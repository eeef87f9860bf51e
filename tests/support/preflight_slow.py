"""The preflight's checks of the small run, and copies of its files to break."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from preflight_objects import clean

from kdfast.recipes.preflight.facts import SmallRun
from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.preflight.table import CHECKS


def steps() -> dict[str, int]:
    """The last step of the small run, the step after which it is under quantisation, and the one in between."""
    run: SmallRun = clean().get("run")
    train, quant = run.project.config.train, run.project.config.quant
    start = quant.phase_start(train.num_steps)
    return {"last": train.num_steps, "start": start, "late": start + 1}


def slow_failures(objects: Objects, group: str, *, and_cheap: bool = False) -> list[str]:
    """The checks of a group that fail; `and_cheap`: and the cheap ones of all groups."""
    chosen = [check for check in CHECKS if check.group == group or (and_cheap and not check.slow)]
    return [check.name for check in chosen if any(one.status == "fail" for one in look_once(check, objects))]


def copied_run(directory: Path, name: str = "run") -> SmallRun:
    """The small run of the clean project, with files of its own."""
    run: SmallRun = clean().get(name)
    config, result = run.project.config, run.result
    folder = Path(shutil.copytree(config.io.run_dir, directory / name))
    assert result.student is not None
    config = replace(config, io=replace(config.io, run_dir=folder))
    return replace(
        run,
        project=replace(run.project, config=config),
        result=replace(result, run_dir=folder, student=folder / result.student.name),
    )
