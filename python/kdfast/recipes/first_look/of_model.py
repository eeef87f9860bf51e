"""A first look at a model that the user named, and at what it shall answer."""

from __future__ import annotations

from pathlib import Path

from kdfast.errors import ConfigError
from kdfast.model_files import check_model_directory
from kdfast.recipes.first_look.files import check_records, file_problem
from kdfast.runs.folder import RunFolder


def model_folder(path: Path, *, name: str = "model") -> Path:
    """The Hugging Face directory of a model: `path` itself, or the finished student in a run folder.

    Args:
        path: what the user named.
        name: how messages call the model.

    Raises:
        ConfigError: no such directory, or a run that has no student yet.
    """
    if path.is_file():
        check_model_directory(path, error=ConfigError, name=name)
    if not path.is_dir():
        raise ConfigError(
            f"{name}: no such directory; give a Hugging Face model directory or a run folder: {path}"
        )
    folder = RunFolder(path)
    is_model = (path / "config.json").exists()
    if folder.student.is_dir() and not is_model:
        return folder.student
    if folder.holds_run and not is_model:
        raise ConfigError(
            f"{name}: this run has no student yet; finish it (`kdfast train CONFIG --resume`) or name a checkpoint "
            f"of it: {path}"
        )
    return path


def check_model(path: Path, *, name: str = "model") -> Path:
    """Checks that a model is there with its tokenizer; no weight is read.

    Args:
        path: what the user named.
        name: how messages call the model.

    Returns:
        its Hugging Face directory, see `model_folder`.

    Raises:
        ConfigError: there is no model, or it has no tokenizer.json.
        OSError: its config.json cannot be read.
    """
    directory = model_folder(path, name=name)
    check_model_directory(directory, error=ConfigError, name=name)
    if not (directory / "tokenizer.json").is_file():
        raise ConfigError(f"{name}: has no tokenizer.json; give a Hugging Face model directory: {directory}")
    return directory


def check_prompts(prompts: Path, run: Path | None = None) -> None:
    """Checks that a file of prompts is there and holds records.

    Args:
        prompts: JSONL.
        run: the run folder whose `data.validation` it is; None = the user named it.

    Raises:
        ConfigError: there is no such file; says whose it is.
        DataError: it holds no records.
        OSError: it cannot be read.
    """
    problem = file_problem(prompts)
    if problem and run is not None:
        problem += f", which is data.validation of the run {run}; name another with --prompts"
    if problem:
        raise ConfigError(f"--prompts: {problem}" if run is None else problem)
    check_records(prompts)
