"""The command line. Commands import what they need when they run, so that `--help` is instant."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

import click

from kdfast.cli.bless import bless
from kdfast.cli.chat import chat
from kdfast.cli.config import config
from kdfast.cli.convert import convert
from kdfast.cli.data import data
from kdfast.cli.door import run
from kdfast.cli.evaluate import eval_
from kdfast.cli.export import export
from kdfast.cli.gate import gate
from kdfast.cli.journal import journal
from kdfast.cli.measure import measure
from kdfast.cli.preflight import preflight
from kdfast.cli.report import report
from kdfast.cli.teach import teach
from kdfast.cli.train import train

__all__ = ["kdfast", "main", "run", "train_main"]


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    try:
        version = importlib.metadata.version("kdfast")
    except importlib.metadata.PackageNotFoundError:
        version = "(version unknown: not installed as a package)"
    click.echo(f"kdfast {version}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def kdfast() -> None:
    """Distil a tool-calling language model into a small student that is fast on the device.

    \b
    The usual order:
      kdfast data import bfcl WHEEL --out data     real tool-calling records
      kdfast data inspect data/train.jsonl ...     look at them before paying for anything
      kdfast config show CONFIG                    every value of a run, and where it comes from
      kdfast preflight CONFIG                      all that must hold before the teacher is paid
      kdfast teach CONFIG                          the teacher's answers and log-probabilities
      kdfast journal stats FILE                    what a teacher was asked, and what it cost
      kdfast train CONFIG                          the student
      kdfast eval RUN --prompts FILE               does it call tools rightly?
      kdfast measure RUN --prompts FILE ...        how fast it answers, and when it acts
      kdfast chat RUN --tools FILE                 type to it, see its calls
      kdfast bless RUN --prompts FILE ...          make it the one that others are held against
      kdfast gate --candidate RUN ...              may another take its place?
      kdfast export RUN --target gguf --out DIR    what ships, run and compared with what was trained
      kdfast report RUN                            all of it on one HTML page

    \b
    Exit codes: 0 done; 1 the machine failed (disk full, no permission) or a bug; 2 bad config,
    data or arguments; 3 a gate failed; 4 the preflight failed; 5 teacher unavailable or its budget
    reached; 130 stopped, resumable. KDFAST_TRACEBACK=1 shows where an error came from.
    """


for command in (
    train,
    preflight,
    teach,
    journal,
    eval_,
    measure,
    chat,
    bless,
    gate,
    export,
    report,
    config,
    data,
    convert,
):
    kdfast.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """`kdfast`: runs one command.

    Args:
        arguments: the arguments without the program's name; None = those of this process.

    Returns:
        The exit code.

    Examples:
        >>> main(["config", "show", "missing.yaml"])  # and one line on stderr
        2
    """
    return run(kdfast, arguments, "kdfast")


def train_main(arguments: Sequence[str] | None = None) -> int:
    """`kdfast-train`: the same as `kdfast train`.

    Args:
        arguments: the arguments without the program's name; None = those of this process.

    Returns:
        The exit code.
    """
    return run(train, arguments, "kdfast-train")
