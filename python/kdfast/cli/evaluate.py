"""`kdfast eval`: scores the answers of a model and writes them to a file."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from typing import Any

import click

from kdfast.cli.arguments import PATH
from kdfast.cli.model_options import look_before_running, max_new_tokens, model_options, prompts_option
from kdfast.recipes.first_look.of_model import check_unconstrained
from kdfast.recipes.requests import EvaluateRequest


@click.command("eval")
@click.argument("model", metavar="RUN_OR_MODEL_DIR", type=PATH)
@prompts_option
@click.option(
    "--out",
    type=PATH,
    default=EvaluateRequest.out,
    show_default=True,
    help="The file to write, JSON. A CSV file of the same name, for spreadsheets, has one row an answer.",
)
@click.option(
    "--constrained", is_flag=True, help="And a second time with calls constrained to their schemas."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=EvaluateRequest.batch_size,
    show_default=True,
    help="Most prompts that are answered at the same time; an export answers them one by one.",
)
@click.option(
    "--show",
    type=click.IntRange(min=0),
    default=EvaluateRequest.show,
    show_default=True,
    help="How many wrong answers to print.",
)
@max_new_tokens()
@model_options
def eval_(**options: Any) -> int:
    """Evaluate how rightly RUN_OR_MODEL_DIR calls tools.

    The model (any Hugging Face directory with a tokenizer.json, or the student of a run folder) answers each prompt
    greedily; its calls are held against the accepted values of the record (BFCL's rules), else against the calls of
    the right answer. Every share, precision, recall and F1 comes with its 95 % interval (bootstrap over prompts), for
    all prompts and for each category of the records' metadata. Every answer is kept in the file, to be read, and as
    one row of a CSV file beside it, for spreadsheets.

    With --constrained the prompts are answered twice: freely, and so that every call is valid by construction (needs
    `pip install 'kdfast[constrained]'`). The two are reported apart.

    The folder of an export for llama.cpp can be named in place of a model; it answers freely only.

    \b
    Examples:
      kdfast eval runs/quickstart
      kdfast eval models/student --prompts held_out.jsonl --out student.json --constrained
      kdfast eval runs/quickstart/export/gguf --prompts held_out.jsonl --out export.json
      kdfast eval models/teacher --prompts held_out.jsonl --out teacher.json --template hermes

    \b
    Exit codes: 0 evaluated; 1 the machine failed or a bug; 2 no such model or prompts, or bad records.
    """
    look_before_running(options, "model")
    if options["constrained"]:
        check_unconstrained(options["model"])
    from kdfast.recipes.evaluate import run

    return run(EvaluateRequest(**options))
