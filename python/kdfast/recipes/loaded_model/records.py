"""The records on which a model is run, tokenised for it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kdfast.config import load_config
from kdfast.data import DEFAULT_SHAPES, KDDataset, load_template
from kdfast.data.call_format import call_format
from kdfast.errors import DataError
from kdfast.evaluate.left_out import LeftOut, records_with_bad_tools, write_without
from kdfast.recipes.requests import Settings
from kdfast.runs.folder import RunFolder

_LONGEST_SHAPE = (
    2**20
)  # so that no record is too long for the dataset; the model's own limit is checked later

_AS_IN_TRAINING = (
    "allow_reasoning",
    "on_error",
    "max_rejected_fraction",
    "max_line_bytes",
    "content_tokens",
)
"""How a run's lines are read: what training accepted is accepted here, too."""


def read_records(
    named: Path, directory: Path, settings: Settings, leave_out_bad_tools: bool
) -> tuple[KDDataset, list[LeftOut]]:
    """The records, and those that were left out of them.

    Args:
        named: what the user named; a run folder has its own shapes.
        directory: the directory of the model's files.
        settings: which records, and how they are read.
        leave_out_bad_tools: leave out the records whose tools are no valid JSON Schema; else such a record is an error.

    Raises:
        DataError: bad records.
        OSError: a file cannot be read.
    """
    folder = RunFolder(named)
    run = load_config(folder.config).data if folder.holds_run else None
    shapes = DEFAULT_SHAPES if run is None else run.shapes
    as_in_training: dict[str, Any] = (
        {} if run is None else {name: getattr(run, name) for name in _AS_IN_TRAINING}
    )
    # The records are read in the format that the template writes; `settings.formats` is about answers.
    template = load_template(settings.template, directory, settings.template_kwargs, key="--template")
    written = call_format(template.compile())
    named_format = settings.formats[0] if len(settings.formats) == 1 else "hermes"
    opened: Callable[..., KDDataset] = partial(
        KDDataset,
        tokenizer_path=directory,
        shapes=(*shapes, _LONGEST_SHAPE),
        template=settings.template,
        template_kwargs=settings.template_kwargs,
        tool_call_format=written or named_format,
        invalid_calls="keep",  # a right answer is shown and compared here, not learned
        **as_in_training,
    )
    try:
        return opened(settings.prompts), []
    except DataError:
        left_out = records_with_bad_tools(settings.prompts) if leave_out_bad_tools else []
        if not left_out:
            raise
    return _dataset_without(settings.prompts, left_out, opened), left_out


def _dataset_without(path: Path, left_out: list[LeftOut], opened: Callable[..., KDDataset]) -> KDDataset:
    """The other records of the file, read from a copy in which the lines of those left out are blank."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        write_without(path, {one.line for one in left_out}, copy)
        try:
            dataset = opened(copy, cache=path.parent / ".kdfast")
        except DataError as error:
            source = str(path) if error.source == str(copy) else error.source
            raise DataError(error.message, source, error.line, error.column) from error
    # The rows are in the token store. Messages and the fingerprint are about the user's file.
    dataset.path, dataset.paths = path, (path,)
    return dataset
