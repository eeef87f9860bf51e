"""`kdfast teach`: lets the teacher of a config answer prompts, or score answers."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from pathlib import Path

import click

from kdfast.cli.arguments import config_file, overrides
from kdfast.cli.preflight import preflight_before
from kdfast.config import load_config
from kdfast.errors import ConfigError
from kdfast.exit_codes import DONE
from kdfast.recipes.first_look.of_teacher import look_before_teaching
from kdfast.recipes.requests import TeachRequest


@click.command()
@config_file
@overrides
@click.option("--dry-run", is_flag=True, help="Ask nothing; print requests, tokens, cost and time.")
@click.option(
    "--pilot",
    metavar="N",
    type=click.IntRange(min=1),
    help="Ask N prompts whose right answer is known, score the answers, and say whether to go on.",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Ask at most N prompts: a sample with and without tools, in the shares of the file.",
)
@click.option("--no-preflight", is_flag=True, help="Ask a server without the preflight; that is recorded.")
@click.option(
    "--json", "json_out", metavar="FILE", type=click.Path(path_type=Path), help="Write the result there, too."
)
def teach(
    config_file: Path,
    overrides: tuple[str, ...],
    dry_run: bool,
    pilot: int | None,
    limit: int | None,
    no_preflight: bool,
    json_out: Path | None,
) -> int:
    """Ask the teacher of CONFIG for answers or log-probabilities.

    With teacher.prompts, the teacher answers each prompt; the answers that can be learned become the records of
    teacher.out, which data.train names. teacher.kind says who answers: 'local' (teacher.model), 'api' (a server,
    section api), 'replay' (the journal, nobody is asked). Every request is in teacher.journal before it is sent, every
    answer before it is read: an answer that was paid for is never asked for again.

    A local teacher then scores the answers of all training and validation records: the teacher.k best
    log-probabilities of each token go to teacher.store.

    Before a server (kind 'api') is asked, `kdfast preflight` looks at everything, unless it has passed already with the
    same config and files.

    It may be stopped at any moment (Ctrl-C waits for the requests in flight); the same command goes on from there.

    \b
    Examples:
      kdfast teach configs/quickstart.yaml
      kdfast teach configs/api_teacher.yaml --dry-run
      kdfast teach configs/api_teacher.yaml --pilot 20
      kdfast teach configs/api_teacher.yaml teacher.budget=5
      kdfast teach configs/api_teacher.yaml teacher.kind=replay

    \b
    Exit codes: 0 done; 1 the machine failed or a bug; 2 bad config or data; 3 the pilot says no-go, or
    that it cannot tell; 4 the preflight failed; 5 the teacher is unavailable, the budget is reached, or
    requests have no answer yet; 130 stopped. After 5 and 130 the same command goes on.
    """
    config = load_config(config_file, overrides)
    chosen = [
        name for name, given in (("--dry-run", dry_run), ("--pilot", pilot), ("--limit", limit)) if given
    ]
    if pilot and len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)}: give one of them", click.get_current_context())
    chosen += ["--json"] if json_out is not None else []
    if chosen and config.teacher.prompts is None:
        raise ConfigError(f"teacher.prompts: needed by {chosen[0]}; name a file of prompts")
    look_before_teaching(config, ("--json", json_out))
    if config.teacher.kind == "api" and not dry_run:
        code = _preflight(config_file, overrides, skip=no_preflight)
        if code != DONE:
            return code
    from kdfast.recipes.teach.run import run

    options = [("--pilot", pilot), ("--limit", limit), ("--json", json_out)]
    given = [text for name, value in options if value for text in (name, str(value))]
    request = TeachRequest(
        dry_run=dry_run,
        pilot=pilot or 0,
        limit=limit or 0,
        json_out=json_out,
        command=("kdfast", "teach", str(config_file), *overrides, *given),
    )
    return run(config, request)


def _preflight(config_file: Path, overrides: tuple[str, ...], *, skip: bool) -> int:
    """The preflight before anything is paid, or a note that there was none."""
    if not skip:
        code = preflight_before("kdfast teach", config_file, overrides)
        if code != DONE:
            click.echo(
                "nothing was asked; mend what failed, or ask all the same with --no-preflight", err=True
            )
        return code
    from kdfast.recipes.preflight.shown.record import record_skipped

    record_skipped(load_config(config_file, overrides), "kdfast teach --no-preflight")
    return DONE
