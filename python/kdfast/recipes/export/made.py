"""What a target's maker gives back, and what all of them put together alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast._rust import Tokenizer
from kdfast.export.gguf.families import read_shape
from kdfast.export.manifest import Manifest, describe_tensors, not_verified
from kdfast.export.origin import data_of, fingerprints_of, source_of, teacher_of
from kdfast.export.parity.result import ParityCheck
from kdfast.export.serving import Serving
from kdfast.model_files import written_context, written_end_ids
from kdfast.recipes.export.request import NOT_ASKED
from kdfast.recipes.export.student import Student


@dataclass(frozen=True, kw_only=True)
class Made:
    """An export's folder, without manifest and card.

    Attributes:
        manifest: what it holds and what was found.
        serving: how it is served.
        model_bytes: bytes of the file or files with its weights.
        trained_bytes: bytes of the student's weights as training saved them.
    """

    manifest: Manifest
    serving: Serving
    model_bytes: int
    trained_bytes: int


def manifest_of(
    student: Student,
    *,
    tensors: Any,
    parity: Mapping[str, ParityCheck] | None,
    gguf: Mapping[str, str] | None = None,
    not_measured: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest.

    Args:
        student: the student.
        tensors: (name, codes and scales or a float tensor), one after the other.
        parity: the checks; None = the user did not ask for them.
        gguf: file, type and origin of the codes.
        not_measured: what else was not done, and why.
    """
    request, dataset = student.request, student.dataset
    return Manifest(
        target=request.target,
        source={**source_of(request.model, student.directory), "name": request.student_name},
        fingerprints=fingerprints_of(
            student.directory, student.config, dataset=None if dataset is None else dataset.fingerprint
        ),
        tensors=describe_tensors(tensors),
        teacher=teacher_of(student.config),
        data=data_of(student.config),
        parity=not_verified(NOT_ASKED) if parity is None else parity,
        not_measured={**(not_measured or {}), **student.left_out},
        gguf=gguf,
        asked=request.asked,
    )


def serving_of(student: Student, *, file: str = "", grammar: str = "") -> Serving:
    """How the export is served.

    Args:
        student: the student.
        file: the GGUF file's name.
        grammar: the file name of the grammar; "" = there is none.
    """
    directory, target = student.directory, student.request.target
    tokenizer = Tokenizer.from_file(directory / "tokenizer.json")
    return Serving(
        target=target,
        file=file,
        call_format=student.call_format,
        context=read_shape(directory).context if target == "gguf" else written_context(directory),
        stops=tuple(tokenizer.decode([end]) for end in written_end_ids(directory)),
        grammar=grammar,
        hides_tools=student.template.hides_tools,
    )


def weights_bytes(directory: Path) -> int:
    """Bytes of the weights in a student's directory."""
    return sum(path.stat().st_size for path in directory.glob("model*.safetensors"))
