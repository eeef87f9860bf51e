"""`kdfast bless`: make a student the baseline for later candidates."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from typing import Any

import click

from kdfast.cli.arguments import PATH
from kdfast.cli.gate import gate_overrides, limits_config, seed
from kdfast.cli.model_options import look_before_running, max_new_tokens, prompts_option, running_options
from kdfast.config import GatesConfig, load_section
from kdfast.recipes.requests import BlessRequest


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL_DIR", type=PATH)
@gate_overrides
@prompts_option
@click.option("--out", type=PATH, required=True, help="The baseline to write, JSON.")
@limits_config
@max_new_tokens(2)
@running_options
@seed
def bless(overrides: tuple[str, ...], **options: Any) -> int:
    """Bless RUN_OR_MODEL_DIR: write the baseline that later candidates are held against.

    The model answers every prompt, and then runs against itself as `kdfast gate` would run it against another model:
    what differs then is the noise of this machine. The baseline is one JSON file: the speed report with its raw
    samples and quality, the hashes of prompts and weights, the hardware, the noise.

    The folder of an export for llama.cpp can be named in place of a model, and then judges exports.

    \b
    Examples:
      kdfast bless runs/quickstart --out baseline.json
      kdfast bless runs/quickstart/export/gguf --prompts held_out.jsonl --out baseline.json --threads 1
      kdfast bless models/student --prompts held_out.jsonl --out baseline.json --limit 20 --threads 1

    \b
    Exit codes: 0 written; 1 the machine failed or a bug; 2 no such model or prompts, or bad records.
    """
    limits = load_section(GatesConfig, options.pop("config"), overrides)
    look_before_running(options, "model")
    from kdfast.recipes.gate import bless as run

    return run(BlessRequest(limits=limits, **options))
