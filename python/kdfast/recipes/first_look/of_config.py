"""A first look at the files that a config names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdfast.config import Config
from kdfast.errors import ConfigError, TeacherError
from kdfast.model_files import check_gguf, check_model_directory
from kdfast.recipes.first_look.files import (
    check_named,
    check_records,
    check_tokenizer,
    file_problem,
    folder_problem,
    template_problem,
)
from kdfast.recipes.first_look.of_gate import check_baselines
from kdfast.recipes.first_look.stores import holds_stores, not_taught, only_store

Problems = Iterator[tuple[str, str | None]]


def look_before_training(config: Config) -> None:
    """Checks what `kdfast train` reads and where it writes.

    Raises:
        ConfigError: a path that is missing or of the wrong kind; a line for each, by its key.
        TeacherError: `teacher.model` is needed and no model.
        DataError: a file is damaged, or of another kind than its key wants.
        OSError: a file cannot be read.
    """
    baseline, teacher = config.gates.baseline, config.teacher
    outputs = [("io.run_dir", folder_problem(config.io.run_dir))]
    if baseline is not None:
        outputs.append(("gates.baseline", file_problem(baseline)))
    check_named(placed(config, *data_problems(config), *outputs))
    reads_store = config.kd.reads_store(live_teacher=teacher.live) and teacher.store is not None
    if teacher.model is not None and (reads_store or teacher.live or config.arch.init == "teacher"):
        check_teacher(teacher.model)
    if config.arch.init not in ("scratch", "teacher"):
        check_model_directory(Path(config.arch.init), error=ConfigError, name="arch.init")
    if reads_store and teacher.store is not None:
        if teacher.model is None:
            only_store(teacher.store)
        elif not holds_stores(teacher.store):
            raise not_taught(teacher.store)
    if baseline is not None:
        check_baselines(config.gates)
    check_data(config)


def look_before_preparing(config: Config) -> None:
    """Checks what `kdfast data prepare` reads and where it writes.

    Raises:
        ConfigError: a path that is missing or of the wrong kind; a line for each, by its key.
        DataError: a file is damaged, or of another kind than its key wants.
        OSError: a file cannot be read.
    """
    check_named(placed(config, *data_problems(config)))
    check_data(config)


def look_before_estimating(config: Config) -> None:
    """Checks the one file that the estimate of a student from scratch reads.

    Raises:
        ConfigError: there is no tokenizer.
    """
    if config.arch.vocab_size is None:
        tokenizer = file_problem(config.data.tokenizer, or_directory=True)
        check_named(placed(config, ("data.tokenizer", tokenizer)))


def data_problems(config: Config) -> Problems:
    """What is wrong with the paths of the section `data`."""
    data = config.data
    for file in data.train_files:
        not_taught_yet = file == config.teacher.out and not file.exists()
        missing = (
            f"not written yet; run `kdfast teach` with this config first: {file}" if not_taught_yet else None
        )
        yield "data.train", missing or file_problem(file)
    if data.validation is not None:
        yield "data.validation", file_problem(data.validation)
    yield "data.tokenizer", file_problem(data.tokenizer, or_directory=True)
    yield "data.template", template_problem(data.template)
    if data.cache is not None:
        yield "data.cache", folder_problem(data.cache)


def placed(config: Config, *problems: tuple[str, str | None]) -> Problems:
    """The problems, each with the place of its key in the config's file."""
    for key, problem in problems:
        origin = config.origins.get(key, "default")
        known = problem is None or origin in ("default", "override", "given")
        yield key, problem if known else f"{problem} ({origin})"


def check_data(config: Config) -> None:
    """Reads the tokenizer, and the heads of the records."""
    data = config.data
    check_tokenizer(data.tokenizer)
    for file in (*data.train_files, *([] if data.validation is None else [data.validation])):
        check_records(
            file,
            on_error=data.on_error,
            allow_reasoning=data.allow_reasoning,
            max_line_bytes=data.max_line_bytes,
        )


def check_teacher(model: Path) -> None:
    """Checks that `teacher.model` may be a model."""
    if model.suffix.lower() == ".gguf":
        check_gguf(model, name="teacher.model")
    else:
        check_model_directory(model, error=TeacherError, name="teacher.model")
