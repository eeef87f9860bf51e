"""`kdfast data import`: turns public datasets into kdfast records."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdfast.cli.arguments import PATH
from kdfast.importers.bfcl_split import Shares


@click.group("import")
def import_group() -> None:
    """Turn a public dataset into kdfast records."""


@import_group.command()
@click.argument("source", metavar="WHEEL_OR_DIR", type=PATH)
@click.option("--out", type=PATH, required=True, help="Directory for train.jsonl and validation.jsonl.")
@click.option(
    "--categories", metavar="A,B...", help="Only these categories.  [default: all single-turn ones]"
)
@click.option("--rows", type=click.IntRange(min=1), help="Training records.  [default: all that remain]")
@click.option(
    "--validation-rows",
    type=click.IntRange(min=1),
    help="Held-out records.  [default: by --validation-fraction]",
)
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=Shares.validation_fraction,
    show_default=True,
    help="Share of the records to hold out.",
)
@click.option(
    "--irrelevance-fraction",
    type=click.FloatRange(0, 1),
    help="Share of the training records that need no call.  [default: as they come]",
)
@click.option(
    "--validation-irrelevance-fraction",
    type=click.FloatRange(0, 1),
    help="The same for the held-out records.  [default: as --irrelevance-fraction]",
)
@click.option("--max-chars", type=click.IntRange(min=1), help="Leave out records with a longer prompt.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of split and draw.")
def bfcl(
    source: Path, out: Path, categories: str | None, max_chars: int | None, seed: int, **shares: Any
) -> None:
    """Import the Berkeley Function Calling Leaderboard's data.

    WHEEL_OR_DIR is the wheel of the package bfcl-eval, or the directory it was unpacked to:

    \b
      pip download --no-deps bfcl-eval
      kdfast data import bfcl bfcl_eval-*.whl --out data --rows 200 --validation-rows 40

    Records that ask the same question or offer the same functions go to the same side of the split. The
    categories without a tool to call have no answers of their own: theirs are made here and marked
    metadata.synthetic. The same source, options and seed give the same bytes. A model that is trained on
    these records proves nothing on the leaderboard.

    \b
    Exit codes: 0 imported; 1 the machine failed or a bug; 2 no BFCL data, or fewer records than asked for.
    """
    from kdfast.importers.bfcl import import_bfcl

    chosen = {"categories": tuple(categories.split(","))} if categories else {}
    summary = import_bfcl(source, out, shares=Shares(**shares), max_chars=max_chars, seed=seed, **chosen)
    for path, records in ((summary.train_path, summary.train), (summary.validation_path, summary.validation)):
        counts = ", ".join(f"{name} {count}" for name, count in records.items())
        click.echo(f"{path}: {sum(records.values())} records ({counts})")
    for reason, count in summary.skipped.items():
        click.echo(f"left out: {count} ({reason})")
