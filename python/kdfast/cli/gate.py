"""`kdfast gate`: compare a student with the one in use."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdfast.cli.arguments import PATH
from kdfast.cli.model_options import (
    check_outputs,
    look_before_running,
    max_new_tokens,
    prompts_option,
    running_options,
)
from kdfast.config import GatesConfig, load_section
from kdfast.recipes.first_look.of_gate import check_baselines, check_enabled, check_reports
from kdfast.recipes.first_look.of_model import check_same_engine
from kdfast.recipes.requests import GateRequest

limits_config = click.option(
    "--config", type=PATH, help="A config whose section 'gates' has the limits; else the defaults."
)
gate_overrides = click.argument("overrides", metavar="[gates.KEY=VALUE]...", nargs=-1)
seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=GateRequest.seed,
    show_default=True,
    help="Of the order of the runs and the bootstrap.",
)
_JUDGING = ("strict", "allow_cross_hardware", "json", "junit")


@click.command()
@gate_overrides
@click.option(
    "--candidate", type=PATH, help="The model to judge: a Hugging Face directory, a run folder or an export."
)
@click.option(
    "--blessed", type=PATH, help="The model in use, to run against it; without it, times decide nothing."
)
@prompts_option
@click.option(
    "--candidate-report",
    type=PATH,
    multiple=True,
    help="A speed report of the candidate, in place of --candidate; give one a run.",
)
@click.option(
    "--baseline",
    type=PATH,
    multiple=True,
    help="What `kdfast bless` wrote, or speed reports of the model in use.  [default: gates.baseline]",
)
@limits_config
@click.option("--strict", is_flag=True, help="Skipped and inconclusive count as failed.")
@click.option("--allow-cross-hardware", is_flag=True, help="Compare times although the hardware differs.")
@click.option("--json", type=PATH, help="Write the result here, for machines.")
@click.option("--junit", type=PATH, help="Write it here as JUnit XML, for CI.")
@click.option("--reports", type=PATH, help="Folder that keeps the speed reports of both models.")
@max_new_tokens(2)
@running_options
@seed
def gate(overrides: tuple[str, ...], **options: Any) -> int:
    """Judge whether a candidate may take the blessed model's place.

    Both models answer every prompt once, for the quality and the first action; then they run in pairs, one right after
    the other on the same prompt, in random order, as many as the noise of this machine asks for. A candidate that is a
    run folder brings its own prompts. The limits are the section 'gates' of a config; any key can be given another
    value after the options.

    Exports (the folders that `kdfast export --target gguf` makes) run in llama.cpp, an export only against an export:
    so the gate holds what would ship against what is in use.

    With --candidate-report nothing is run. Reports of single runs say little about time (they are report_only); from
    gates.min_runs (6) a side on, taken by turns, they decide.

    \b
    Examples:
      kdfast gate --candidate runs/new --blessed runs/old
      kdfast gate --candidate runs/new --blessed runs/old --prompts held_out.jsonl --strict --junit gates.xml
      kdfast gate --candidate models/new --baseline baseline.json --prompts held_out.jsonl gates.f1_drop=0.02
      kdfast gate --candidate exports/new --blessed exports/old --prompts held_out.jsonl --threads 1
      kdfast gate --candidate-report new.json --baseline baseline.json

    \b
    Exit codes: 0 no gate failed; 1 the machine failed or a bug; 2 no such model, prompts or baseline, or a
    bad one; 3 a gate failed; 130 stopped.
    """
    files = options.pop("candidate_report")
    _check_form(options, files)
    limits = load_section(GatesConfig, options.pop("config"), overrides)
    if files:
        check_outputs(options)
    else:
        look_before_running(options, "candidate", "blessed")
        if options["blessed"] is not None:
            check_same_engine(options["candidate"], options["blessed"])
    baselines = options.pop("baseline")
    check_reports(files)
    check_enabled(limits)
    check_baselines(limits, baselines)
    given = {name: options.pop(name) for name in _JUDGING}
    from kdfast.recipes.gate import Judging, gate_reports
    from kdfast.recipes.gate import gate as run

    judging = Judging(limits=limits, baselines=baselines, **given)
    return gate_reports(files, judging) if files else run(GateRequest(**options), judging)


def _check_form(options: dict[str, Any], files: tuple[Path, ...]) -> None:
    """Checks that the user named either models or reports."""
    if files:
        for name in ("candidate", "blessed", "prompts", "reports"):
            if options[name] is not None:
                raise click.UsageError(
                    f"--{name}: means nothing beside --candidate-report, which runs no model"
                )
        return
    if options["candidate"] is None:
        raise click.UsageError("Missing option '--candidate' (or '--candidate-report').")
