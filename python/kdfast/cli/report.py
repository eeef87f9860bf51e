"""`kdfast report`: shows a run as one HTML page, or several side by side."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from typing import Any

import click

from kdfast.cli.arguments import PATH


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option(
    "--out",
    type=PATH,
    help="The page to write. [default: report.html in the run folder; of several runs comparison.html here]",
)
def report(**options: Any) -> int:
    """Show RUN, a run folder, as one HTML page; or compare several of them.

    The top says whether the run was good; below it are the losses, the tool calls before and after training, example
    answers, the times to the first token and the first action, the gates, padding and the config. If a run lacks
    something, the page says so and names the command that makes it. The page is one file: it needs no network, runs no
    script, follows the reader's light or dark colours, and prints.

    Several RUNs are laid side by side: their loss curves in one chart, the numbers that matter, the gates, and the
    config keys that differ. The page says which numbers cannot be compared, as the runs had other held-out records or
    other prompts. Up to 8 runs have a colour each; more are drawn with dashes.

    A run that is still going can be reported on; its files are only read.

    \b
    Examples:
      kdfast report runs/quickstart
      kdfast report runs/quickstart --out quickstart.html
      kdfast report runs/small runs/large runs/large_long --out sizes.html

    \b
    Exit codes: 0 written, whatever the verdict; 1 the machine failed or a bug; 2 no such run, the
    same run twice, or a damaged file.
    """
    from kdfast.recipes.report import Request
    from kdfast.recipes.report import run as run_report

    return run_report(Request(**options))
