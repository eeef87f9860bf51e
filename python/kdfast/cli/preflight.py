"""`kdfast preflight`: everything that must hold before a teacher is paid."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

import shlex
from pathlib import Path

import click

from kdfast.cli.arguments import PATH, config_file, overrides
from kdfast.config import load_config
from kdfast.exit_codes import DONE
from kdfast.recipes.preflight.facts import PreflightRequest


def _list(context: click.Context, _: click.Parameter, asked: bool) -> None:
    """Prints the checks; needs no CONFIG."""
    if not asked:
        return
    from rich.console import Console

    from kdfast.recipes.preflight.shown.screen import print_list
    from kdfast.recipes.preflight.table import CHECKS

    print_list(Console(), CHECKS)
    context.exit()


@click.command()
@config_file
@overrides
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="Print every check, and exit.",
)
@click.option("--full", is_flag=True, help="Train the student itself for some steps, however large it is.")
@click.option("--probe", is_flag=True, help="Ask the real teacher one prompt (paid); the answer is kept.")
@click.option("--strict", is_flag=True, help="A warning fails, too.")
@click.option("--json", "json_out", metavar="FILE", type=PATH, help="Write the result there, too.")
@click.option("--junit", "junit_out", metavar="FILE", type=PATH, help="Write the result as JUnit's XML.")
def preflight(
    config_file: Path,
    overrides: tuple[str, ...],
    full: bool,
    probe: bool,
    strict: bool,
    json_out: Path | None,
    junit_out: Path | None,
) -> int:
    """Check all that must hold before the teacher of CONFIG is paid.

    Takes some of your own records, lets a fake teacher on this machine answer them through the real client and journal,
    trains, quantises, stops, resumes, measures and exports a student on them, and looks at every part: config, machine,
    data, tokens, batches, model, losses, learning, teacher, checkpoints, speed, export. Nothing is paid, and it takes
    about a minute. A student that is too large for that is stood in for by a small one of its family.

    The result is kept in io.run_dir, for `kdfast teach` and for the report. `kdfast teach` of kind 'api' does all this
    by itself before it asks, unless it has passed already with the same config and files.

    \b
    Examples:
      kdfast preflight configs/quickstart.yaml
      kdfast preflight configs/student_9b_gqa.yaml data.train=my.jsonl data.tokenizer=my/tokenizer
      kdfast preflight configs/api_teacher.yaml --strict --junit preflight.xml
      kdfast preflight configs/api_teacher.yaml --probe
      kdfast preflight --list

    \b
    Exit codes: 0 all of it holds; 1 the machine failed or a bug; 2 bad config or arguments; 4 a check
    failed, which is shown with its remedy; 130 stopped.
    """
    config = load_config(config_file, overrides)
    flags = {"--full": full, "--probe": probe, "--strict": strict}
    files = {"--json": json_out, "--junit": junit_out}
    options = [name for name, given in flags.items() if given]
    options += [word for name, path in files.items() if path is not None for word in (name, str(path))]
    request = PreflightRequest(
        full=full,
        probe=probe,
        strict=strict,
        json_out=json_out,
        junit_out=junit_out,
        again=shlex.join(("kdfast", "preflight", str(config_file), *overrides, *options)),
    )
    from kdfast.recipes.preflight.run import run

    return run(config, request)


def preflight_before(command: str, config_file: Path, overrides: tuple[str, ...]) -> int:
    """Runs the preflight of another command's config, unless one that passed still holds.

    Args:
        command: the other command: "kdfast teach".
        config_file: its config.
        overrides: its overrides.

    Returns:
        The exit code: 0 = the command may go on.
    """
    config = load_config(config_file, overrides)
    from kdfast.recipes.preflight.shown.record import holds_text, passed_before

    trains_next = command == "kdfast train"
    before = passed_before(config, trains_next=trains_next)
    if before is not None:
        click.echo(holds_text(before))
        return DONE
    click.echo(f"{command}: preflight first, nothing is paid yet")
    from kdfast.recipes.preflight.run import run

    options = ("--preflight",) if trains_next else ()  # without it nothing would be looked at again
    again = shlex.join((*command.split(), str(config_file), *overrides, *options))
    return run(config, PreflightRequest(again=again, trains_next=trains_next))
