"""`kdfast report`: a run folder as one HTML page, or several run folders side by side."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from kdfast.errors import ConfigError
from kdfast.files import write_text_whole
from kdfast.page import render_page
from kdfast.page.compare import Run, labels, render_comparison
from kdfast.runs.folder import RunFolder
from kdfast.runs.reading import read_run
from kdfast.runs.saved import read_saved

COMPARISON = Path("comparison.html")
"""The page of several runs, if the user names none."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to report on.

    Attributes:
        runs: run folders; several are compared.
        out: the page to write; None = `report.html` in the run folder, or `COMPARISON` for several.
    """

    runs: tuple[Path, ...]
    out: Path | None = None


def run(request: Request) -> int:
    """Writes the page.

    Returns:
        0, also for a bad run: the page informs, the gates decide.

    Raises:
        ConfigError: there is no run, its config is damaged, or a run is named twice; names the run.
        DataError: one of its files is damaged; names file, line, key and remedy.
        OSError: a file cannot be read or written.
    """
    single = len(request.runs) == 1
    out = request.out or (RunFolder(request.runs[0]).report if single else COMPARISON)
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    console = Console()
    if single:
        document, told = render_page(read_run(request.runs[0]))
        write_text_whole(out, document)
        _line(console, "verdict", told)
        _line(console, "report", str(out))
        return 0
    runs = _read(request.runs)
    document, warnings = render_comparison(runs)
    write_text_whole(out, document)
    for one in runs:
        _line(console, "verdict", f"{one.label}: {one.verdict[1]}: {one.verdict[2]}")
    for warning in warnings:
        _line(console, "warning", warning)
    _line(console, "comparison", str(out))
    return 0


def _read(paths: Sequence[Path]) -> list[Run]:
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            first, second = paths[resolved.index(path)], paths[index]
            named = str(second) if first == second else f"{first} is {second}"
            raise ConfigError(f"run: named twice; name each run once: {named}")
    return [
        Run(label=label, files=read_run(path), saved=read_saved(path))
        for label, path in zip(labels(resolved), paths, strict=True)
    ]


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"  {name:<12} {text}", highlight=False, soft_wrap=True, markup=False)
