"""`kdfast export`: the student as files that a runtime reads, executed and compared."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from typing import Any, get_args

import click

from kdfast.cli.arguments import PATH, template_kwargs
from kdfast.config.export import GgufType, Target, Waiver
from kdfast.recipes.export.request import ExportRequest


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL_DIR", type=PATH)
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    required=True,
    help="gguf: one file for llama.cpp and what is built on it; hf: a directory for transformers and vLLM.",
)
@click.option("--out", type=PATH, required=True, help="The folder to make.")
@click.option(
    "--type",
    "gguf_type",
    type=click.Choice(get_args(GgufType)),
    help="Weights of the GGUF.  [default: those of quantisation-aware training, else q8_0]",
)
@click.option(
    "--prompts",
    type=PATH,
    help="Held-out records, JSONL, on which both are run.  [default: a run folder's data.validation]",
)
@template_kwargs
@click.option("--tools", type=PATH, help="A JSON list of tools: their grammar (GBNF) is written beside it.")
@click.option("--no-verify", is_flag=True, help="Do not run and compare the export; its manifest says so.")
@click.option(
    "--waive",
    type=click.Choice(get_args(Waiver)),
    multiple=True,
    help="Accept a difference by its name, such as 'number' (a schema's 1.0 that the runtime prints as 1).",
)
@click.option(
    "--pre",
    metavar="NAME",
    help="llama.cpp's name of the tokenizer's rules, if kdfast does not know them; the records must prove it.",
)
@click.option("--name", help="The student's name in the files.  [default: the folder's]")
@click.option("--license", metavar="ID", help="The student's licence for its model card, such as apache-2.0.")
@click.option("--replace", is_flag=True, help="Replace an older export in --out.")
@click.option(
    "--threads",
    type=click.IntRange(min=0, max=1024),
    default=ExportRequest.threads,
    show_default=True,
    help="CPU threads; 0 = OMP_NUM_THREADS, else all.",
)
def export(no_verify: bool, **options: Any) -> int:
    """Export RUN_OR_MODEL_DIR, run the export, and compare it with what was trained.

    A student that was trained under quantisation leaves with exactly the codes and scales that it was trained with. A
    float one is quantised by the same rules, and the manifest says "post-training".

    Then the file is read back and run by the runtime itself, on held-out records: are all weights equal, are the
    logits those of torch with the same weights, does the runtime make the same prompt ids of messages and tools, does
    its parser find the calls that kdfast finds, does it stop where training stops? Only an export that passes gets the
    name --out; else it is left in OUT.failed, to look at. docs/export.md explains each difference.

    The folder has the model, its tokenizer and template, manifest.json, a model card (README.md) and how to serve it.
    `kdfast measure`, `gate`, `bless`, `eval` and `chat` take it in place of a model.

    \b
    Examples:
      kdfast export runs/quickstart --target gguf --out exports/quickstart
      kdfast export runs/quickstart --target gguf --type q4_0 --out exports/small --waive number
      kdfast export models/student --target hf --out exports/hf --prompts held_out.jsonl

    \b
    Exit codes: 0 exported, and equal to what was trained; 1 the machine failed (disk full) or a bug;
    2 no student, a family or tokenizer that cannot be exported, a folder that exists; 3 the export differs.
    """
    from kdfast.recipes.export.first_checks import look_before_exporting

    request = look_before_exporting(ExportRequest(verify=not no_verify, **options))
    from kdfast.recipes.export.run import export as run

    return run(request)
