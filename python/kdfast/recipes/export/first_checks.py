"""Before torch is imported: is there a student that can leave in this format, and a free place for it?"""

from __future__ import annotations

import glob
from dataclasses import replace
from pathlib import Path

from kdfast.config import load_config
from kdfast.errors import ConfigError
from kdfast.files import put_back
from kdfast.recipes.export.request import ExportRequest
from kdfast.recipes.first_look.files import check_tokenizer
from kdfast.recipes.first_look.of_model import check_model, check_prompts
from kdfast.recipes.first_look.of_tools import read_tools
from kdfast.runs.export_folder import ExportFolder
from kdfast.runs.folder import RunFolder


def look_before_exporting(request: ExportRequest) -> ExportRequest:
    """Finds what would fail later, and fills in what a run folder knows.

    Args:
        request: what the user asked.

    Returns:
        the request with its records and its template's variables.

    Raises:
        ConfigError: no student; a family or a tokenizer that the target cannot hold; no records to compare on; the
            folder exists; the runtime is not installed.
        DataError: the records or the tools are damaged.
        OSError: a file cannot be read.
    """
    request = replace(request, out=request.out.resolve())
    if ExportFolder(request.model).holds_export:
        raise ConfigError(f"model: is an export already; name the run that it came from: {request.model}")
    directory = check_model(request.model)
    check_tokenizer(directory)
    check_free(request)
    request = _with_records(request)
    if request.pre is not None and not request.verify:
        raise ConfigError(f"--pre: must be proven on records; leave out --no-verify: {request.pre}")
    if request.tools is not None:
        read_tools(request.tools)
    if request.target == "gguf":
        from kdfast.export.gguf import check_supported  # it imports torch

        check_supported(directory, pre=request.pre)
        if request.verify:
            from kdfast.llama_cpp import require_llama_cpp

            require_llama_cpp()
    return request


def check_free(request: ExportRequest) -> None:
    """Checks that nothing but an older export is in the way, where the export and a failed one would be.

    Args:
        request: the request; `out` is resolved.

    Raises:
        ConfigError: files of somebody else are there, or an export that may not be replaced.
        OSError: a folder cannot be read.
    """
    out, model = request.out, request.model.resolve()
    if model == out or model.is_relative_to(out):
        raise ConfigError(f"--out: holds the model that is exported; name a new folder: {out}")
    # A kill may have taken the former export's name away.
    put_back(out.parent, glob.escape(out.name))
    if _holds_only_an_export(out, "--out") and not request.replace:
        raise ConfigError(f"--out: holds an export already; name a new folder, or add --replace: {out}")
    _holds_only_an_export(failed_folder(out), "--out: where a failed export is left")


def failed_folder(out: Path) -> Path:
    """Where an export is left that differs from what was trained.

    Example:
        >>> failed_folder(Path("exports/small")).name
        'small.failed'
    """
    return out.with_name(f"{out.name}.failed")


def _holds_only_an_export(out: Path, name: str) -> bool:
    """Whether an export is there, and nothing else; False = the place is free."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise ConfigError(f"{name}: must be a folder, this is a file; name another path: {out}")
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    if not there and not any(out.iterdir()):
        return False
    export = ExportFolder(out)
    own = _own_files(export) if export.holds_export else set()
    other = sorted(there - own) or ([] if own else [path.name for path in out.iterdir()])
    if other:
        raise ConfigError(
            f"{name}: holds files of somebody else, which would be lost ({other[0]}); name a new folder: {out}"
        )
    return True


def _own_files(export: ExportFolder) -> set[str]:
    entries = export.document.get("files")
    listed = entries if isinstance(entries, list) else []
    return {
        export.manifest.name,
        *(str(one["file"]) for one in listed if isinstance(one, dict) and "file" in one),
    }


def _with_records(request: ExportRequest) -> ExportRequest:
    """The request with the run's own held-out records and variables of the template, where the user gave none."""
    folder = RunFolder(request.model)
    given = request.prompts is not None
    if folder.holds_run:
        data = load_config(folder.config).data
        request = replace(
            request,
            prompts=request.prompts or data.validation,
            template_kwargs=data.template_kwargs
            if request.template_kwargs is None
            else request.template_kwargs,
        )
    if not request.verify:
        return request if given else replace(request, prompts=None)
    if request.prompts is None:
        raise ConfigError(
            "--prompts: needed to compare the export on (held-out records, JSONL); name them, or give up the proof "
            f"with --no-verify: {request.model}"
        )
    check_prompts(request.prompts, None if given else request.model)
    return request
