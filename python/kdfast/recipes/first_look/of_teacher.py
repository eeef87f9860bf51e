"""A first look at what `kdfast teach` reads and where it writes, before anything slow or paid is done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from kdfast.config import Config
from kdfast.config.teacher import TeachFiles
from kdfast.errors import ConfigError
from kdfast.recipes.first_look.files import (
    check_named,
    check_records,
    check_tokenizer,
    file_problem,
    folder_problem,
    template_problem,
)
from kdfast.recipes.first_look.of_config import Problems, check_data, check_teacher, data_problems, placed
from kdfast.teacher.api.price import price_of
from kdfast.teacher.api.secrets_from_env import read_secrets

_MOST_LINE_BYTES = 2**26


def look_before_teaching(config: Config, *more_outputs: tuple[str, Path | None]) -> None:
    """Checks what a teacher is asked, who is asked, and where the answers go.

    Args:
        config: the config.
        more_outputs: names of options and the files that are written for them; None = not given.

    Raises:
        ConfigError: a key that is needed is not set, or a path is missing or of the wrong kind.
        TeacherError: `teacher.model` is no model.
        DataError: a file is damaged, or of another kind than its key wants.
        OSError: a file cannot be read.
    """
    check_named(placed(config, *_missing_keys(config)))
    files = config.teacher.files
    if files is None:
        _look_before_scoring(config)
        return
    check_named(
        placed(config, *_prompt_problems(config, files), *_output_problems(config, files, more_outputs))
    )
    if config.teacher.kind == "local" and config.teacher.model is not None:
        check_teacher(config.teacher.model)
    check_tokenizer(config.data.tokenizer)
    check_records(
        files.prompts,
        lines="prompts",
        allow_reasoning=config.data.allow_reasoning,
        max_line_bytes=config.data.max_line_bytes,
    )
    if config.teacher.kind == "api":
        price_of(config.price)
        read_secrets(config.api, os.environ)


def _look_before_scoring(config: Config) -> None:
    model, store = config.teacher.model, config.teacher.store
    if model is None:
        raise ConfigError(
            "teacher.model: needed by `kdfast teach`; set it to a Hugging Face directory or a .gguf file"
        )
    if store is None:
        raise ConfigError(
            "teacher.store: needed by `kdfast teach`; set it to a directory (training with teacher.live needs none)"
        )
    check_named(placed(config, *data_problems(config), ("teacher.store", folder_problem(store))))
    check_teacher(model)
    check_data(config)


def _missing_keys(config: Config) -> Problems:
    teacher, api = config.teacher, config.api
    if teacher.kind == "local":
        return
    if teacher.prompts is None:
        yield "teacher.prompts", f"needed by teacher.kind '{teacher.kind}'; name a file of prompts"
    if teacher.kind == "api":
        if api.base_url is None:
            yield (
                "api.base_url",
                "needed by teacher.kind 'api'; set it to the server's address, such as https://example.com/v1",
            )
        if api.model is None:
            yield "api.model", "needed by teacher.kind 'api'; set it to the model's name at the server"
        if api.hosted and teacher.terms is None:
            host = urlsplit(api.base_url or "").hostname
            yield (
                "teacher.terms",
                f"prompts leave this machine for {host}, whose terms say whether you may train on its answers; read"
                " them, and set teacher.terms to 'acknowledged'",
            )


def _prompt_problems(config: Config, files: TeachFiles) -> Iterator[tuple[str, str | None]]:
    teacher, data = config.teacher, config.data
    yield "teacher.prompts", file_problem(files.prompts)
    if teacher.kind == "replay":
        yield "teacher.journal", file_problem(files.journal)
    yield "data.tokenizer", file_problem(data.tokenizer, or_directory=True)
    yield "data.template", template_problem(data.template)
    if teacher.kind == "local":
        for file in data.train_files:
            if file != files.out:
                yield "data.train", file_problem(file)
        if teacher.store is not None:
            yield "teacher.store", folder_problem(teacher.store)


def _output_problems(
    config: Config, files: TeachFiles, more: Sequence[tuple[str, Path | None]]
) -> Iterator[tuple[str, str | None]]:
    """What is wrong with the files to write: each must be one of its own, and what is there must be ours."""
    held = {files.prompts.resolve(): "teacher.prompts", config.data.tokenizer.resolve(): "data.tokenizer"}
    if config.data.validation is not None:
        held[config.data.validation.resolve()] = "data.validation"
    given = [(key, path) for key, path in more if path is not None]
    for key, path in (("teacher.journal", files.journal), ("teacher.out", files.out), *given):
        other = held.setdefault(path.resolve(), key)
        if other != key:
            yield key, f"would overwrite {other}; name another file: {path}"
        elif path.is_dir():
            yield key, f"is a directory (name a file instead): {path}"
        else:
            yield key, folder_problem(path.parent) or _unwritable(path.resolve().parent)
    yield "teacher.out", _of_somebody_else(files.out)


def _unwritable(folder: Path) -> str | None:
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return (
        None if os.access(there, os.W_OK) else f"nothing may be written there; choose another folder: {there}"
    )


def _of_somebody_else(out: Path) -> str | None:
    """Whether the file holds records that `kdfast teach` did not write: they would be lost."""
    if not out.is_file():
        return None
    with out.open("rb") as file:
        first = file.readline(_MOST_LINE_BYTES)
    if not first.strip():
        return None
    try:
        origin = json.loads(first)["metadata"]["teacher"]["request"]
    except (ValueError, TypeError, KeyError):
        origin = None
    return None if origin else f"holds records that kdfast teach did not write; name another file: {out}"
