"""`kdfast export`: makes the folder, proves it, and gives it its name only if it is what was trained."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path

from rich.console import Console

from kdfast.display import Display
from kdfast.exit_codes import DONE, GATE_FAILED
from kdfast.export.card import model_card
from kdfast.export.manifest import write_manifest
from kdfast.files import write_text_whole, written_whole
from kdfast.recipes.export.first_checks import failed_folder
from kdfast.recipes.export.gguf import make_gguf
from kdfast.recipes.export.hf import make_hf
from kdfast.recipes.export.made import Made
from kdfast.recipes.export.request import ExportRequest
from kdfast.recipes.export.student import Student
from kdfast.recipes.export.summary import print_export, shown
from kdfast.runs.export_folder import ExportFolder
from kdfast.runs.folder import RunFolder
from kdfast.runs.reading import read_run

_MAKERS = {"gguf": make_gguf, "hf": make_hf}


class _DiffersError(Exception):
    """The export is not what was trained; its folder has another name now."""


def export(request: ExportRequest, display: Display | None = None) -> int:
    """Exports a student.

    An export that differs from what was trained does not get the name `request.out`: it is left in `OUT.failed`, and a
    former export keeps its place.

    Args:
        request: what is asked, as `look_before_exporting` returns it.
        display: shows progress and the result; None = a new one.

    Returns:
        The exit code: 0, or 3 when the export differs from what was trained.

    Raises:
        ConfigError: the student cannot leave in this format.
        DataError: records, weights or table are damaged.
        QATError: weights and table of the student are not one model.
        OSError: a file cannot be read or written; nothing is left.
    """
    display = display or Display()
    failed = failed_folder(request.out)
    _remove_leftovers(request.out)
    try:
        with written_whole(request.out) as beside:
            made = _make(request, beside, display)
            if any(check.failed for check in made.manifest.parity.values()):
                shutil.rmtree(failed, ignore_errors=True)
                beside.rename(failed)
                raise _DiffersError
    except _DiffersError:
        print_export(display.console, made, failed)
        _say_failed(display.console, failed)
        return GATE_FAILED
    shutil.rmtree(failed, ignore_errors=True)
    print_export(display.console, made, request.out)
    return DONE


def _remove_leftovers(out: Path) -> None:
    """Removes what killed exports left beside their folder; those that other processes make now are theirs."""
    for kind in ("tmp", "old"):
        for path in out.parent.glob(f".{glob.escape(out.name)}.{kind}-*"):
            if not _runs(path.name.rpartition("-")[2]):
                shutil.rmtree(path, ignore_errors=True)


def _runs(pid: str) -> bool:
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _make(request: ExportRequest, folder: Path, display: Display) -> Made:
    student = Student(request)
    made = _MAKERS[request.target](student, folder, display)
    _write_card(student, made, folder)
    write_manifest(made.manifest, folder)
    return made


def _write_card(student: Student, made: Made, folder: Path) -> None:
    request = student.request
    run = read_run(request.model) if RunFolder(request.model).holds_run else None
    card = model_card(made.manifest, made.serving, run=run, license_name=request.license)
    write_text_whole(ExportFolder(folder).card, card)


def _say_failed(console: Console, failed: Path) -> None:
    console.print(
        "[bold red]failed[/bold red]: the export is not what was trained; do not ship it. docs/export.md explains each "
        "difference, and which can be accepted by name (--waive, export.waive)",
        soft_wrap=True,
    )
    console.print(f"  {'left in':<12} {shown(failed)}", highlight=False, soft_wrap=True, markup=False)
