"""Which student a run folder holds, and whether a speed report is about that student."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdfast.config import Config
from kdfast.runs.folder import RunFolder
from kdfast.runs.node import Node

_WITH_STUDENT = ("train", "validation")


@dataclass(frozen=True)
class Stale:
    """A measurement that is not about the student that the run folder holds.

    Attributes:
        reason: of which student it is, and which student the folder holds.
        remedy: what to do for a new one.
    """

    reason: str
    remedy: str


def student_step(origin: Node | None, metrics: Sequence[Node]) -> int | None:
    """The step of the weights of the student: the one that its own file names, else the last step of the metrics.

    With `io.final: best` the student's step is the one of the best checkpoint, below the last step.

    Args:
        origin: `RunFolder.student_origin`; None = there is none (an older run, or no student yet).
        metrics: the lines of `metrics.jsonl`.

    Returns:
        the step; None = neither says it.

    Raises:
        DataError: a file is not as `kdfast train` writes it; the message names file, line and key.

    Examples:
        >>> lines = [Node({"step": 8, "kind": "validation"}, "metrics.jsonl", "remove it", 1)]
        >>> student_step(None, lines)
        8
        >>> student_step(Node({"step": 4, "final": "best"}, "kdfast.json", "save it again"), lines)
        4
    """
    if origin is not None:
        return origin["step"].count()
    steps = [line["step"].count() for line in metrics if line["kind"].text() in _WITH_STUDENT]
    return max(steps, default=None)


def stale_speed(report: Node, folder: RunFolder, config: Config, step: int | None) -> Stale | None:
    """Whether a speed report is about another student than the run folder's.

    A report that was made in training names its step. One of `kdfast measure` has none. It is stale if the student's
    weights are newer and the report's fingerprint is not theirs.

    Args:
        report: the speed report.
        folder: the run folder.
        config: the run's config.
        step: the student's step, see `student_step`.

    Returns:
        why the report is stale; None = it is about this student, or nothing says that it is not.

    Raises:
        DataError: the report is damaged; the message names file and key.
        OSError: the weights cannot be read.
    """
    measured = report.find("step")
    if measured is not None:
        at = measured.count()
        reason = "" if step in (at, None) else f"measured at step {at:,}, the student is of step {step:,}"
    else:
        of = f" of step {step:,}" if step is not None else ""
        reason = f"measured before the student{of} was saved" if _weights_are_newer(report, folder) else ""
    return Stale(reason, _remedy(folder, config)) if reason else None


def weights_fingerprint(directory: Path) -> str:
    """SHA-256 (hex) over a model's config and weights, as reports have it under `fingerprints.model`.

    Raises:
        OSError: a file cannot be read.
    """
    total = hashlib.sha256()
    for file in sorted([directory / "config.json", *directory.glob("*.safetensors")]):
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def _weights_are_newer(report: Node, folder: RunFolder) -> bool:
    """Whether the student's weights are other ones than those that were measured.

    The time comes first, because it costs nothing. A copied folder has new times, so a doubt is settled by the hash.
    """
    files, measured_at = list(folder.student.glob("*.safetensors")), report.find("measured_at")
    if not files or measured_at is None:
        return False
    if max(file.stat().st_mtime for file in files) <= measured_at.number():
        return False
    prints = report.find("fingerprints")
    model = prints.find("model") if prints is not None else None
    if model is None or not (folder.student / "config.json").is_file():
        return True
    return weights_fingerprint(folder.student) != model.text()


def _remedy(folder: RunFolder, config: Config) -> str:
    measure = f"`kdfast measure RUN --prompts FILE --out RUN/{folder.speed.name}` measures anew."
    if folder.student.is_dir():
        return measure
    if config.speed.every_validations and config.data.validation is not None:
        return "The run has not reached its end; its next measurement replaces this one."
    return f"The run has not reached its end. When it has, {measure}"
