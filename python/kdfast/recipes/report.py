"""`kdfast report`: a run folder as one HTML page."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from kdfast.files import write_text_whole
from kdfast.page import render_page
from kdfast.runs.folder import RunFolder
from kdfast.runs.reading import read_run


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to report on.

    Attributes:
        run: a run folder.
        out: the page to write; None = `report.html` in the run folder.
    """

    run: Path
    out: Path | None = None


def run(request: Request) -> int:
    """Writes the page.

    Returns:
        0, also for a bad run: the page informs, the gates decide.

    Raises:
        ConfigError: there is no run, or its config is damaged.
        DataError: one of its files is damaged; names file, line, key and remedy.
        OSError: a file cannot be read or written.
    """
    out = request.out or RunFolder(request.run).report
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    document, told = render_page(read_run(request.run))
    write_text_whole(out, document)
    console = Console()
    console.print(f"  {'verdict':<12} {told}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"  {'report':<12} {out}", highlight=False, soft_wrap=True, markup=False)
    return 0
