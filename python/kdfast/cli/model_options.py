"""Options of every command that runs a model on prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from kdfast.cli.arguments import PATH, Formats, template_kwargs
from kdfast.config import load_config
from kdfast.config.choices import DEVICES, DTYPES
from kdfast.files import check_file
from kdfast.recipes.first_look.files import check_named, check_tokenizer, folder_problem, template_problem
from kdfast.recipes.first_look.of_model import check_export_settings, check_model, check_prompts
from kdfast.recipes.requests import ModelSettings, Settings
from kdfast.runs.folder import RunFolder

Command = TypeVar("Command", bound=Callable[..., Any])

_WARMUP = click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=Settings.warmup,
    show_default=True,
    help="Generations before the first measured one.",
)
_TEMPLATE = (
    click.option(
        "--template",
        default=Settings.template,
        show_default=True,
        help="Chat template of the records: the model's own, 'auto', 'hermes', or a .jinja file.",
    ),
    template_kwargs,
)
_LIMIT = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=Settings.limit,
    show_default=True,
    help="Only the first N prompts; 0 = all.",
)
_RUNNING = (
    click.option(
        "--formats",
        type=Formats(),
        default="auto",
        show_default=True,
        help="Formats of calls that count: names with commas, 'all', or 'auto': the one that the template writes.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=0, max=1024),  # torch crashes when it is asked for a million
        default=Settings.threads,
        show_default=True,
        help="CPU threads; 0 = torch's default, or one a core for an export.",
    ),
    click.option(
        "--device",
        type=click.Choice(DEVICES),
        default=Settings.device,
        show_default=True,
        help="Where the model runs; an export runs on the CPU.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(list(DTYPES)),
        default=Settings.dtype,
        show_default=True,
        help="Numbers of its weights; an export has its own.",
    ),
)


def model_options(command: Command) -> Command:
    """Adds the options of every command that runs a model on prompts; their names are those of `Settings`."""
    return _with((*_TEMPLATE, _LIMIT, *_RUNNING), command)


def chat_options(command: Command) -> Command:
    """Adds those of them that need no prompts; their names are those of `ModelSettings`."""
    return _with((*_TEMPLATE, *_RUNNING), command)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def running_options(command: Command) -> Command:
    """Adds the same options and `--warmup`, for commands that measure time."""
    return model_options(_WARMUP(command))


prompts_option = click.option(
    "--prompts",
    type=PATH,
    help="Records, JSONL: their prompts are answered.  [default: a run folder's data.validation]",
)


def prompts_of(model: Path, prompts: Path | None) -> Path:
    """The file of prompts: the one that the user named, else the held-out records of the run folder.

    Args:
        model: a Hugging Face directory, a run folder, or the folder of an export.
        prompts: the value of `prompts_option`.

    Raises:
        UsageError: the user named none, and `model` is no run folder with held-out records.
        ConfigError: the run's config is damaged.
    """
    folder = RunFolder(model)
    if prompts is None and folder.holds_run:
        prompts = load_config(folder.config).data.validation
    if prompts is None:
        raise click.UsageError("Missing option '--prompts' (only a run folder has its own).")
    return prompts


def look_before_running(options: dict[str, Any], *models: str) -> None:
    """Finds the prompts, and checks the files that a command's options name, before torch is imported.

    Args:
        options: the values of the options; the file of prompts is put there.
        models: the options that name a model; the first one brings the prompts. A model that is None is left out.

    Raises:
        UsageError: there are no prompts, see `prompts_of`.
        ConfigError: a model or a file is missing, or of the wrong kind.
        DataError: a file is damaged, or not what it should be.
        OSError: a file cannot be read, or is in the way of what the command writes.
    """
    named, first = options["prompts"], options[models[0]]
    if not first.is_dir():  # a misspelt run has no prompts either, but that is not what is wrong
        check_model(first, name=models[0])
    options["prompts"] = prompts_of(first, named)
    for name in models:
        if options[name] is not None:
            look_at_model(options, name)
    check_prompts(options["prompts"], first if named is None else None)
    check_named([("--template", template_problem(options["template"]))])
    check_outputs(options)


def look_at_model(options: dict[str, Any], name: str) -> None:
    """Checks the files of a model, and that it can run as the options `device` and `dtype` say.

    Args:
        options: the values of the options.
        name: the option that names the model.

    Raises:
        ConfigError, DataError, OSError: as for `look_before_running`.
    """
    model = options[name]
    check_tokenizer(check_model(model, name=name))
    settings = ModelSettings(device=options["device"], dtype=options["dtype"])
    check_export_settings(model, settings, name=name)


def check_outputs(options: dict[str, Any]) -> None:
    """Checks that what the options `out`, `json`, `junit` and `reports` name can be written; makes folders of files.

    Raises:
        ConfigError: a file is a directory, or the folder of reports is a file.
        OSError: a file's folder cannot be made.
    """
    for name in ("out", "json", "junit"):
        path = options.get(name)
        if path is not None:
            taken = f"is a directory (name a file instead): {path}" if path.is_dir() else None
            check_named([(f"--{name}", taken)])
            check_file(path)
    if options.get("reports") is not None:
        check_named([("--reports", folder_problem(options["reports"]))])


def max_new_tokens(minimum: int = 1, default: int = Settings.max_new_tokens) -> Callable[[Command], Command]:
    """The option `--max-new-tokens`.

    Args:
        minimum: the smallest number that makes sense for the command.
        default: its default.
    """
    return click.option(
        "--max-new-tokens",
        type=click.IntRange(min=minimum),
        default=default,
        show_default=True,
        help="Cut answers after N tokens.",
    )
