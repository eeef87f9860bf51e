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


@import_group.command("smart_home")
@click.argument("source", metavar="WHEEL_OR_DIR", type=PATH)
@click.option("--out", type=PATH, required=True, help="Directory for the six files.")
@click.option("--rows", type=click.IntRange(min=1), default=50_000, show_default=True, help="Of train.jsonl.")
@click.option("--labels", type=click.IntRange(min=1), default=250, show_default=True, help="Of labels.jsonl.")
@click.option(
    "--prompts", type=click.IntRange(min=1), default=8_000, show_default=True, help="Of prompts.jsonl."
)
@click.option(
    "--validation-rows",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    help="Of validation.jsonl.",
)
@click.option(
    "--test-rows", type=click.IntRange(min=1), default=600, show_default=True, help="Of test.jsonl."
)
@click.option(
    "--no-call-fraction",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of the records of each file that need no call.",
)
@click.option(
    "--held-out-templates",
    type=click.FloatRange(0, 0.5),
    default=0.15,
    show_default=True,
    help="Share of the templates that only test (2/3) and validation (1/3) may use.",
)
@click.option(
    "--tools-per-record",
    type=click.IntRange(min=1),
    help="Tools that a record offers.  [default: 4 in train.jsonl, all in the other files]",
)
@click.option("--language", default="en", show_default=True, help="Language of the templates.")
@click.option("--home", type=PATH, help="YAML file of the home.  [default: the one that comes with kdfast]")
@click.option(
    "--bfcl", type=PATH, metavar="WHEEL", help="BFCL's wheel: questions that no tool of a home fits."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the rows and the held-out templates.",
)
def smart_home(source: Path, out: Path, **options: Any) -> None:
    """Make a smart home's commands from the templates of home-assistant-intents.

    WHEEL_OR_DIR is the wheel of the package home-assistant-intents, or the directory it was unpacked to. The
    templates are read by the package hassil, of the extra kdfast[smart-home]:

    \b
      pip download --no-deps home-assistant-intents
      kdfast data import smart_home home_assistant_intents-*.whl --out data

    The home is closed: its rooms, devices and lists are those of one YAML file, and other names are refused. The
    files are train.jsonl (plentiful truth), labels.jsonl (few), prompts.jsonl (without answers, for a teacher),
    validation.jsonl (to choose settings by), test.jsonl (to report) and tools.json. No sentence is in two of
    them; metadata.slice says what training has not seen. The same source, options and seed give the same bytes. The
    templates were written by people, but nobody was recorded saying them.

    \b
    Exit codes: 0 imported; 1 the machine failed or a bug; 2 no such package, language or home, or too few
    sentences.
    """
    from kdfast.display import Display
    from kdfast.importers.smart_home.importer import Options, import_smart_home, row_count

    chosen = Options(**options)
    with Display().working("import", row_count(chosen)) as on_progress:
        summary = import_smart_home(source, out, chosen, on_progress)
    for line in summary.lines():
        click.echo(line)
