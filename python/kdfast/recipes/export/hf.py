"""The target `hf`: the student's Hugging Face directory, byte by byte."""

from __future__ import annotations

from pathlib import Path

from kdfast.display import Display
from kdfast.export.hf import export_hf
from kdfast.export.manifest import saved_tensors
from kdfast.recipes.export.made import Made, manifest_of, serving_of, weights_bytes
from kdfast.recipes.export.student import Student
from kdfast.recipes.export.verify import verify_hf


def make_hf(student: Student, folder: Path, display: Display) -> Made:
    """Copies the student, lets transformers load the copy, and compares the prompts that it makes.

    Args:
        student: the student.
        folder: an empty directory.
        display: shows progress.

    Raises:
        ConfigError, DataError, QATError, OSError: as in `kdfast.recipes.export.run.export`.
    """
    with display.working("copy", 2) as on_progress:
        export_hf(student.directory, folder)
        on_progress(1, "verify" if student.request.verify else "")
        parity = verify_hf(student, folder) if student.request.verify else None
        on_progress(2, "")
    size = weights_bytes(folder)
    return Made(
        manifest=manifest_of(student, tensors=saved_tensors(student.directory), parity=parity),
        serving=serving_of(student),
        model_bytes=size,
        trained_bytes=size,
    )
