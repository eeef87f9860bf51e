"""`kdfast data`: import, look at, split, prepare, audit and export records, and make a tokenizer for them."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdfast.cli.arguments import (
    PATH,
    Shapes,
    config_file,
    overrides,
    show_tools,
    template,
    template_kwargs,
    tokenizer,
    tool_call_format,
)
from kdfast.cli.imports import import_group
from kdfast.config import DataConfig, load_config
from kdfast.recipes.first_look.files import (
    check_named,
    check_new,
    check_records,
    check_tokenizer,
    file_problem,
    folder_problem,
    template_problem,
)
from kdfast.recipes.first_look.of_config import look_before_preparing
from kdfast.recipes.requests import InspectRequest


@click.group()
def data() -> None:
    """Import, look at, split, prepare, audit and export records; make a tokenizer for them."""


data.add_command(import_group)


@data.command()
@click.argument("file", type=PATH)
@tokenizer
@template
@template_kwargs
@show_tools
@tool_call_format
@click.option(
    "--shapes",
    type=Shapes(),
    default=",".join(map(str, DataConfig.default("shapes"))),
    show_default=True,
    help="Padded lengths in tokens.",
)
@click.option(
    "--line", type=click.IntRange(min=1), help="Show the record of this line as the example, not the first."
)
@click.option(
    "--validation",
    type=PATH,
    help="Held-out records: count their prompts that are prompts of FILE too.",
)
def inspect(file: Path, **options: Any) -> int | None:
    """Show what training would see of FILE, a JSONL file of records.

    Counts, lengths in tokens, how the rows fall into the shapes and what padding wastes, the share of records
    that need a tool, keys that kdfast does not know, rows that are there twice, prompts with two answers,
    rejected lines with their reasons, and one example with its spans coloured: prompt, answer, call, tool name,
    arguments, turn end. Bad lines are put aside in FILE.rejected.jsonl; the token store stays beside the file, so
    that training starts at once.

    \b
    Examples:
      kdfast data inspect data/train.jsonl --tokenizer models/teacher
      kdfast data inspect data/train.jsonl --tokenizer models/teacher --shapes 128,256,512 --line 17
      kdfast data inspect data/train.jsonl --tokenizer models/teacher --validation data/validation.jsonl

    \b
    Exit codes: 0 looked at (rejected lines are shown, not fatal); 1 the machine failed or a bug;
    2 no such file, or nothing in it could be read.
    """
    validation, tokenizer = options["validation"], options["tokenizer"]
    problems = [("FILE", file_problem(file)), ("--template", template_problem(options["template"]))]
    if validation is not None:
        problems.append(("--validation", file_problem(validation)))
    check_named([*problems, ("--tokenizer", file_problem(tokenizer, or_directory=True))])
    check_tokenizer(tokenizer)
    check_records(file, on_error="quarantine")
    from kdfast.recipes import data as prepare

    return prepare.inspect(InspectRequest(path=file, **options))


@data.command()
@config_file
@overrides
def prepare(config_file: Path, overrides: tuple[str, ...]) -> int | None:
    """Tokenise and annotate the records of CONFIG into token stores.

    Training does this by itself when it has to; here it is done beforehand, for example on a machine without
    an accelerator. A store that fits the records, tokenizer and template is left as it is.

    \b
    Examples:
      kdfast data prepare configs/quickstart.yaml
      kdfast data prepare configs/quickstart.yaml data.on_error=quarantine

    \b
    Exit codes: 0 prepared; 1 the machine failed or a bug; 2 bad config or data.
    """
    config = load_config(config_file, overrides)
    look_before_preparing(config)
    from kdfast.recipes import data as prepare

    return prepare.prepare(config)


@data.command()
@click.argument("file", type=PATH)
@click.option("--out", type=PATH, required=True, help="Directory for train.jsonl and validation.jsonl.")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the records to hold out.",
)
@click.option(
    "--by",
    type=click.Choice(["prompt,tools", "prompt"]),
    default="prompt,tools",
    show_default=True,
    help="What training and held-out records must not share.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which are held out.")
def split(file: Path, out: Path, fraction: float, by: str, seed: int) -> int | None:
    """Split FILE, a JSONL file of records, into training and held-out records without a leak.

    Records that ask the same (up to case, spaces and punctuation) or offer the same set of tools, directly or through
    others, go to the same side: what is held out is new to the student. Where all records share one set of
    tools, as on a device with fixed ones, take --by prompt. Lines are copied unchanged; the same file,
    options and seed give the same bytes.

    \b
    Example:
      kdfast data split data/all.jsonl --out data --fraction 0.1

    \b
    Exit codes: 0 split; 1 the machine failed or a bug; 2 bad data, or records that cannot be split.
    """
    check_named([("FILE", file_problem(file)), ("--out", folder_problem(out))])
    from kdfast.recipes import data as prepare

    return prepare.split(file, out, fraction=fraction, by=by, seed=seed)


@data.command("tokenizer")
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("--vocab", type=click.IntRange(min=1), default=2048, show_default=True, help="Ids in all.")
@click.option("--out", type=PATH, required=True, help="Directory to write.")
@click.option(
    "--template",
    default="hermes",
    show_default=True,
    help="The student's chat template: 'hermes' (kdfast's own) or a .jinja file.",
)
@show_tools
@click.option(
    "--call-frames",
    is_flag=True,
    help="One token for each text that is around every call's name and arguments: calls become half as long.",
)
@click.option("--overwrite", is_flag=True, help="Replace the tokenizer that --out holds.")
def train_tokenizer(files: tuple[Path, ...], out: Path, vocab: int, template: str, **options: bool) -> None:
    """Train a tokenizer for a model from scratch on FILES, JSONL files of records or prompts.

    A byte-level BPE of exactly --vocab ids: every byte, the chat template's control tokens, and what is
    learned from the rows as the model will see them. It reads every language, and numbers stay whole. A few
    thousand ids suit a small model with one task: the embedding is most of such a model. The student and its
    teacher, if that starts from scratch too, share one. The same files and options give the same bytes.

    \b
    Examples:
      kdfast data tokenizer data/train.jsonl --vocab 2048 --out models/tokenizer --hide-tools --call-frames
      kdfast data tokenizer data/train.jsonl data/prompts.jsonl --template mine.jinja --out models/tokenizer

    \b
    Exit codes: 0 written; 1 the machine failed or a bug; 2 bad data, too little text for --vocab, a template
    without control tokens, or an output that is in the way.
    """
    problems = [("FILES", file_problem(file)) for file in dict.fromkeys(files)]
    if template in ("auto", "tokenizer"):
        why = f"there is no tokenizer yet whose template this could be (name 'hermes' or a .jinja file): {template}"
        problems.append(("--template", why))
    else:
        problems.append(("--template", template_problem(template)))
    check_named([*problems, ("--out", folder_problem(out))])
    from kdfast.recipes.data.tokenizer import train_tokenizer as train

    train(files, out, size=vocab, template=template, **options)


@data.command()
@click.argument("directory", type=PATH)
def audit(directory: Path) -> int | None:
    """Check every byte of DIRECTORY, a token store or a teacher store.

    Opening a store checks its headers and lengths; this reads it whole and compares the checksums.

    \b
    Example:
      kdfast data audit .cache/quickstart-llm/teacher-store

    \b
    Exit codes: 0 whole; 1 the machine failed or a bug; 2 damaged (the error names the segment), or no store.
    """
    from kdfast.recipes import data as prepare

    return prepare.audit(directory)


@data.command()
@click.argument("file", type=PATH)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["parquet", "datasets"]),
    default="parquet",
    show_default=True,
    help="One Parquet file, or a directory for `datasets.load_from_disk` (needs the extra kdfast[datasets]).",
)
@click.option("--out", type=PATH, required=True, help="The file or directory to write.")
@tokenizer
@template
@template_kwargs
@show_tools
def export(file: Path, format_: str, out: Path, tokenizer: Path, template: str, **options: Any) -> int | None:
    """Write the rows of FILE, a JSONL file, for other tools: tokens, labels, masks and metadata.

    \b
    Examples:
      kdfast data export data/train.jsonl --tokenizer models/teacher --out train.parquet
      kdfast data export data/train.jsonl --tokenizer models/teacher --format datasets --out train

    \b
    Exit codes: 0 written; 1 the machine failed or a bug; 2 bad data or an output that is in the way.
    """
    problems = [("FILE", file_problem(file)), ("--template", template_problem(template))]
    problems.append(("--out", folder_problem(out.parent)))
    check_named([*problems, ("--tokenizer", file_problem(tokenizer, or_directory=True))])
    check_new(out)
    check_tokenizer(tokenizer)
    check_records(file)
    from kdfast.recipes import data as prepare

    return prepare.export(file, out, format=format_, tokenizer=tokenizer, template=template, **options)
