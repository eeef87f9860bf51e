"""`kdfast teach`: fills the teacher store of a config."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from pathlib import Path

import click

from kdfast.cli.arguments import config_file, overrides
from kdfast.config import load_config
from kdfast.recipes.first_look.of_config import look_before_teaching


@click.command()
@config_file
@overrides
def teach(config_file: Path, overrides: tuple[str, ...]) -> int:
    """Ask the teacher of CONFIG for its log-probabilities.

    The teacher (teacher.model) scores the answer of every training and validation record; the teacher.k best
    log-probabilities of each token go to teacher.store. It may be stopped at any moment; the same command goes on from
    there. A row that is in the store is never scored again, even if records are added, removed or reordered.

    \b
    Examples:
      kdfast teach configs/quickstart.yaml
      kdfast teach configs/quickstart.yaml teacher.k=64 teacher.store=.cache/store-64

    \b
    Exit codes: 0 every row is scored; 1 the machine failed or a bug; 2 bad config or data;
    5 the teacher could not be loaded; 130 stopped, the same command goes on.
    """
    config = load_config(config_file, overrides)
    look_before_teaching(config)
    from kdfast.recipes.teach.run import run

    return run(config)
