"""What `kdfast export` prints: sizes, each check, and where the files are."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kdfast.export.parity.table import parity_table
from kdfast.recipes.export.made import Made

_ORIGINS = {
    "trained": "with the codes and scales of training",
    "post-training": "quantised after training",
    "float": "not quantised",
}


def print_export(console: Console, made: Made, folder: Path) -> None:
    """Prints an export.

    Args:
        console: where to print.
        made: what was made.
        folder: where it is now.
    """
    manifest = made.manifest
    console.print(parity_table(manifest.parity))
    for check in manifest.parity.values():
        for problem in check.problems:
            console.print(f"  {check.name}: {problem}", highlight=False, soft_wrap=True, markup=False)
    if manifest.gguf is not None:
        what = f"{manifest.gguf['type']}, {_ORIGINS[manifest.gguf['origin']]}"
        _line(console, "weights", what)
        share = made.model_bytes / made.trained_bytes if made.trained_bytes else 0
        _line(
            console,
            "size",
            f"{_size(made.model_bytes)}, {share:.0%} of the {_size(made.trained_bytes)} in training",
        )
    else:
        _line(console, "size", _size(made.model_bytes))
    for what, why in manifest.not_measured.items():
        _line(console, f"no {what}", why)
    _line(console, "export", shown(folder))


def shown(path: Path) -> str:
    """The path as one would type it here."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # an export to `.` replaces the folder in which one stands
        return str(path)
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"  {name:<12} {text}", highlight=False, soft_wrap=True, markup=False)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
