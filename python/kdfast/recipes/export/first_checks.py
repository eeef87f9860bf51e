"""Before torch is imported: is there a student that can leave in this format, and a free place for it?"""

from __future__ import annotations

from dataclasses import replace

from kdfast.config import load_config
from kdfast.errors import ConfigError
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
    if ExportFolder(request.model).holds_export:
        raise ConfigError(f"model: is an export already; name the run that it came from: {request.model}")
    directory = check_model(request.model)
    check_tokenizer(directory)
    _check_free(request)
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


def _check_free(request: ExportRequest) -> None:
    out = request.out
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise ConfigError(f"--out: must be a folder, this is a file; name another path: {out}")
    if not any(out.iterdir()):
        return
    if not ExportFolder(out).holds_export:
        raise ConfigError(f"--out: holds other files, which would be lost; name a new folder: {out}")
    if not request.replace:
        raise ConfigError(f"--out: holds an export already; name a new folder, or add --replace: {out}")


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
