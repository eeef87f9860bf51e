"""`kdfast measure`: writes a report on the speed of a model."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from typing import Any

import click

from kdfast.cli.arguments import PATH
from kdfast.cli.model_options import look_before_running, max_new_tokens, prompts_option, running_options
from kdfast.recipes.requests import MeasureRequest


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL_DIR", type=PATH)
@prompts_option
@click.option("--out", type=PATH, required=True, help="The report to write, JSON.")
@max_new_tokens()
@running_options
def measure(**options: Any) -> int:
    """Measure how fast RUN_OR_MODEL_DIR answers, and after how many tokens it acts.

    The model (any Hugging Face directory with a tokenizer.json, or the student of a run folder) answers each prompt
    alone, greedily, with a KV cache. The report has the time to the first token (tokenising, prefill, first token),
    the time of each further token, and how many tokens and milliseconds go by until the first tool call that
    satisfies its schema is complete: "never" counts as infinite. Every raw sample is kept.

    The folder of an export for llama.cpp can be named in place of a model: then llama.cpp runs it, and the report says
    so (`export: true`). Its times are compared only with those of other exports.

    Times belong to this machine and its load: compare reports of the same hardware key, measured by turns.

    \b
    Examples:
      kdfast measure runs/quickstart --out speed.json
      kdfast measure models/student --prompts held_out.jsonl --out speed.json --limit 20 --threads 1
      kdfast measure runs/quickstart/export/gguf --prompts held_out.jsonl --out export.json --threads 1
      kdfast measure models/teacher --prompts held_out.jsonl --out teacher.json --template hermes

    \b
    Exit codes: 0 measured; 1 the machine failed or a bug; 2 no such model or prompts, or bad records.
    """
    look_before_running(options, "model")
    from kdfast.recipes.measure import run

    return run(MeasureRequest(**options))
