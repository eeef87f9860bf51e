"""`kdfast train`, also called `kdfast-train`: trains the student of a config."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

import os
from pathlib import Path

import click

from kdfast.cli.arguments import config_file, overrides
from kdfast.cli.preflight import preflight_before
from kdfast.config import load_config
from kdfast.exit_codes import DONE
from kdfast.recipes.export.of_run import look_before_training as look_before_exporting
from kdfast.recipes.first_look.of_config import look_before_training
from kdfast.runs.claim import check_not_running
from kdfast.runs.folder import RunFolder, check_run_folder


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@config_file
@overrides
@click.option("--resume", is_flag=True, help="Go on from the run folder's newest checkpoint.")
@click.option(
    "--preflight", is_flag=True, help="Check everything first (see `kdfast preflight`); then train."
)
def train(config_file: Path, overrides: tuple[str, ...], resume: bool, preflight: bool) -> int:
    """Train the student that CONFIG describes.

    Reads the records and the teacher store, trains, validates, saves checkpoints, evaluates the student on
    held-out prompts before and after, and writes everything to io.run_dir. Any key of the config can be given
    another value after CONFIG; relative paths start at the current directory.

    \b
    Examples:
      kdfast train configs/quickstart.yaml
      kdfast train configs/quickstart.yaml train.num_steps=10 io.run_dir=runs/short
      kdfast train configs/quickstart.yaml --resume
      torchrun --nproc-per-node 2 -m kdfast.cli train configs/quickstart.yaml

    Ctrl-C or SIGTERM saves a checkpoint and says how to resume. Resumed, a run may have another
    train.num_steps, optimizer.schedule_steps and io.final, and other validation, checkpoint and logging keys,
    nothing else. One process trains in a run folder at a time; a start that is refused leaves nothing there.

    \b
    Exit codes: 0 trained; 1 the machine failed (disk full, no permission) or a bug; 2 bad config or
    data; 3 too few right or too many false calls (limits of section train), a failed gate
    (train.fail_on_gate) or an export that differs from the student (export.verify); 4 the preflight
    failed; 5 teacher.model is no model; 130 stopped, resumable.
    """
    config = load_config(config_file, overrides)
    look_before_training(config)
    main = os.environ.get("RANK", "0") == "0"  # of several ranks, the first one looks after the folder
    if main:
        look_before_exporting(config)
        check_run_folder(config, resume=resume)
        check_not_running(RunFolder(config.io.run_dir))
    if preflight:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise click.UsageError(
                "--preflight: run it in one process, before torchrun", click.get_current_context()
            )
        code = preflight_before("kdfast train", config_file, overrides)
        if code != DONE:
            return code
    from kdfast.recipes.train.run import train as run

    result = run(config, resume=resume)
    if not (main and result.finished and config.export.targets):
        return result.exit_code
    from kdfast.recipes.export.of_run import export_run

    return max(result.exit_code, export_run(config))  # 0 or 3: a student that failed a gate is exported, too
