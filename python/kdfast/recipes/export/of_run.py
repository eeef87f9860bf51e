"""The exports of a training run: what its config asks for, in the run's folder."""

from __future__ import annotations

from pathlib import Path

from kdfast.config import Config
from kdfast.errors import ConfigError, DataError
from kdfast.exit_codes import DONE
from kdfast.model_files import converted_directory
from kdfast.recipes.export.first_checks import check_free, look_before_exporting
from kdfast.recipes.export.request import ExportRequest
from kdfast.runs.export_folder import ExportFolder
from kdfast.runs.folder import RunFolder
from kdfast.runs.student import weights_fingerprint


def look_before_training(config: Config) -> None:
    """Finds, before the first step, what would keep the finished student from leaving.

    Args:
        config: the run's config.

    Raises:
        ConfigError: a family or a tokenizer that the target cannot hold, no records to compare on, or the runtime is
            not installed.
        OSError: a file cannot be read.
    """
    export = config.export
    if not export.targets:
        return
    if export.verify and config.data.validation is None:
        raise ConfigError(
            "export.verify: needs data.validation, held-out records to compare on; set that, or export.verify=false"
        )
    for request in export_requests(config):
        check_free(request)
    if "gguf" not in export.targets:
        return
    if export.verify:
        from kdfast.llama_cpp import require_llama_cpp

        require_llama_cpp()
    from kdfast.export.gguf import check_parts

    # What the built student's own files say is checked later, by `check_export`.
    check_parts(_first_model(config), config.data.tokenizer)


def _first_model(config: Config) -> Path | None:
    """The Hugging Face directory that the student starts from; None = none is there yet, or it starts from scratch."""
    arch, teacher = config.arch, config.teacher.model
    if arch.init == "scratch":
        return None
    if arch.init != "teacher":
        return Path(arch.init)
    if teacher is None:
        return None
    directory = converted_directory(teacher) if teacher.suffix.lower() == ".gguf" else teacher
    return directory if (directory / "config.json").is_file() else None


def export_run(config: Config) -> int:
    """Exports the finished student of a run, as its section `export` asks.

    An export that is there already, of the same weights, by the same section and proven, is kept.

    Args:
        config: the run's config.

    Returns:
        The exit code: 0, or 3 when an export differs from what was trained.

    Raises:
        ConfigError, DataError, QATError, OSError: as in `kdfast.recipes.export.run.export`; the student is kept.
    """
    # Heavy imports, which `look_before_training` must not need: `--help` is instant.
    from kdfast.display import Display
    from kdfast.recipes.export.run import export
    from kdfast.recipes.export.summary import shown

    code, display = DONE, Display()
    for request in export_requests(config):
        if is_current(request):
            display.console.print(
                f"  {'export':<12} {shown(request.out)} (as before)",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )
            continue
        code = export(look_before_exporting(request), display) or code
    return code


def is_current(request: ExportRequest) -> bool:
    """Whether the export that a request asks for is there already: an export that failed has another name.

    Args:
        request: the request.

    Raises:
        OSError: the student's weights cannot be read.
    """
    folder = ExportFolder(request.out)
    if not folder.holds_export:
        return False
    student = RunFolder(request.model).student
    try:
        manifest = folder.document
        for entry in manifest["files"]:
            folder.checked_hash(folder.path / entry["file"])
        template = (student / "chat_template.jinja").read_bytes()
    except (DataError, FileNotFoundError, KeyError, TypeError):
        return False  # a damaged one is made again
    return (
        manifest.get("asked") == request.asked
        and folder.fingerprint("model") == weights_fingerprint(student)
        and (folder.path / "chat_template.jinja").read_bytes() == template
    )


def export_requests(config: Config) -> list[ExportRequest]:
    """What `kdfast export` would be asked for each target.

    Args:
        config: the run's config.
    """
    export, folder = config.export, RunFolder(config.io.run_dir)
    return [
        ExportRequest(
            model=folder.path,
            target=target,
            out=folder.export(target).resolve(),
            gguf_type=export.gguf_type if target == "gguf" else None,
            prompts=config.data.validation if export.verify else None,
            template_kwargs=config.data.template_kwargs,
            verify=export.verify,
            waive=export.waive,
            license=export.license,
            replace=True,
            threads=config.train.threads,
        )
        for target in export.targets
    ]
