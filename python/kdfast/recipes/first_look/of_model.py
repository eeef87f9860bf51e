"""A first look at a model that the user named, and at what it shall answer."""

from __future__ import annotations

from pathlib import Path

from kdfast.errors import ConfigError
from kdfast.model_files import check_model_directory
from kdfast.recipes.first_look.files import check_records, file_problem
from kdfast.recipes.requests import ModelSettings
from kdfast.runs.export_folder import ExportFolder, export_around
from kdfast.runs.folder import RunFolder


def model_folder(path: Path, *, name: str = "model") -> Path:
    """The directory of a model's files: `path` itself (a model or an export), or the finished student in a run folder.

    Args:
        path: what the user named.
        name: how messages call the model.

    Raises:
        ConfigError: no such directory, a file, or a run that has no student yet; or a folder of several exports.
    """
    if path.is_file() and export_around(path) is not None:
        raise ConfigError(f"{name}: this is a file of an export; name the folder {path.parent}: {path}")
    if path.is_file():
        check_model_directory(path, error=ConfigError, name=name)
    if not path.is_dir():
        raise ConfigError(
            f"{name}: no such directory; give a Hugging Face model directory or a run folder: {path}"
        )
    folder = RunFolder(path)
    is_model = (path / "config.json").exists() or ExportFolder(path).holds_export
    if folder.student.is_dir() and not is_model:
        return folder.student
    if folder.holds_run and not is_model:
        raise ConfigError(
            f"{name}: this run has no student yet; finish it (`kdfast train CONFIG --resume`) or name a checkpoint "
            f"of it: {path}"
        )
    inside = [] if is_model else [one for one in sorted(path.iterdir()) if ExportFolder(one).holds_export]
    if inside:
        raise ConfigError(
            f"{name}: this folder holds exports; name one of them ({', '.join(map(str, inside))}): {path}"
        )
    return path


def export_of(path: Path, *, name: str = "model") -> ExportFolder | None:
    """The export that llama.cpp runs; None = PyTorch runs what is named.

    A run folder is not its exports, and an export for Hugging Face is a model directory like any other.

    Args:
        path: what the user named.
        name: how messages call the model.

    Raises:
        ConfigError: no model can be there, see `model_folder`.
        DataError: the export's manifest is damaged.
        OSError: it cannot be read.
    """
    folder = ExportFolder(model_folder(path, name=name))
    return folder if folder.holds_export and folder.gguf is not None else None


def check_model(path: Path, *, name: str = "model") -> Path:
    """Checks that a model is there with its tokenizer; no weight is read.

    Args:
        path: what the user named.
        name: how messages call the model.

    Returns:
        the directory of its files, see `model_folder`.

    Raises:
        ConfigError: there is no model, or it has no tokenizer.json; or it is an export, and llama.cpp is not installed,
            or its manifest is gone.
        DataError: it is an export, and its manifest is damaged or its GGUF file not what was exported.
        OSError: its config.json cannot be read.
    """
    directory = model_folder(path, name=name)
    export = export_of(path, name=name)
    if export is not None:
        _check_export(export, name)
        return directory
    check_model_directory(directory, error=ConfigError, name=name)
    _check_manifest(directory, name)
    if not (directory / "tokenizer.json").is_file():
        raise ConfigError(f"{name}: has no tokenizer.json; give a Hugging Face model directory: {directory}")
    return directory


def _check_manifest(directory: Path, name: str) -> None:
    """An export for llama.cpp whose manifest is gone looks like a model directory without weights."""
    if ExportFolder(directory).holds_export or not any(directory.glob("*.gguf")):
        return
    if not any(any(directory.glob(pattern)) for pattern in ("model*.safetensors", "*.bin")):
        raise ConfigError(
            f"{name}: this folder has a .gguf file and no manifest.json of an export; export again (`kdfast export`): "
            f"{directory}"
        )


def check_not_failed(path: Path, *, name: str = "model") -> None:
    """Refuses an export that is not what was trained, whatever its target.

    Args:
        path: what the user named.
        name: how messages call the model.

    Raises:
        ConfigError: it is such an export, or there is no model.
        DataError: the export's manifest is damaged.
        OSError: it cannot be read.
    """
    folder = ExportFolder(model_folder(path, name=name))
    if folder.holds_export and folder.failed_checks:
        raise ConfigError(
            f"{name}: this export differs from what was trained: {', '.join(folder.failed_checks)}; mend the cause and "
            f"export again (`kdfast export`): {path}"
        )


def export_warning(path: Path) -> str | None:
    """What to say before an export answers that failed its checks, or was not compared; None = nothing.

    Args:
        path: what the user named: a Hugging Face directory, a run folder, or the folder of an export.

    Raises:
        ConfigError, DataError, OSError: as for `check_not_failed`.
    """
    folder = ExportFolder(model_folder(path))
    if not folder.holds_export:
        return None
    if folder.failed_checks:
        return f"this export differs from what was trained: {', '.join(folder.failed_checks)}; do not ship it"
    if folder.unverified:
        return f"this export was not compared with what was trained: {', '.join(folder.unverified)}"
    return None


def _check_export(export: ExportFolder, name: str) -> None:
    for file in ("config.json", "tokenizer.json"):
        if not (export.path / file).is_file():
            raise ConfigError(
                f"{name}: this export has no {file}; export again (`kdfast export`): {export.path}"
            )
    gguf = export.gguf
    assert gguf is not None  # noqa: S101 - for the type checker
    export.check_size(gguf)
    from kdfast.llama_cpp import check_gguf, require_llama_cpp

    check_gguf(gguf)
    require_llama_cpp()


def check_export_settings(path: Path, settings: ModelSettings, *, name: str = "model") -> None:
    """Refuses what llama.cpp would not do, if an export is named.

    Args:
        path: what the user named.
        settings: how it shall run.
        name: how messages call the model.

    Raises:
        ConfigError: a device other than the CPU, or a number format other than that of the file.
        DataError, OSError: as for `export_of`.
    """
    if export_of(path, name=name) is None:
        return
    if settings.device not in ("auto", "cpu"):
        raise ConfigError(
            f"--device: an export runs on the CPU, in llama.cpp; leave it out, or name the run that was exported: "
            f"{settings.device}"
        )
    if settings.dtype != ModelSettings.dtype:
        raise ConfigError(
            f"--dtype: an export runs with the numbers of its file; leave it out, or name the run that was exported: "
            f"{settings.dtype}"
        )


def check_unconstrained(path: Path, *, name: str = "model") -> None:
    """Refuses to hold the calls of an export to their schemas: llama.cpp would have to do it.

    Raises:
        ConfigError: an export is named.
        DataError, OSError: as for `export_of`.
    """
    if export_of(path, name=name) is not None:
        raise ConfigError(
            "--constrained: an export answers freely only; leave it out, or name the run that was exported: "
            f"{path}"
        )


def check_same_engine(candidate: Path, blessed: Path) -> None:
    """Refuses to run an export against a model in PyTorch: two engines, whose times do not compare.

    Raises:
        ConfigError: one is an export and the other is not.
        DataError, OSError: as for `export_of`.
    """
    exports = {
        name: export_of(path, name=name) is not None
        for name, path in (("candidate", candidate), ("blessed", blessed))
    }
    if exports["candidate"] != exports["blessed"]:
        exported = "candidate" if exports["candidate"] else "blessed"
        other, path = ("blessed", blessed) if exported == "candidate" else ("candidate", candidate)
        raise ConfigError(
            f"--{other}: the {exported} model is an export, and times of llama.cpp and PyTorch do not compare; name an "
            f"export of this one (`kdfast export`): {path}"
        )


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
