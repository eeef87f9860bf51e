"""The student at the end of a run: whose weights it has, and its speed where the last report is of other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from kdfast.config import Config
from kdfast.display import Display
from kdfast.errors import CheckpointError, DataError
from kdfast.files import read_document, write_document
from kdfast.quantized import check_saved, write_table
from kdfast.recipes.train.progress import Progress
from kdfast.recipes.train.qat.shipping import Shipped
from kdfast.recipes.train.speed import SpeedProbe
from kdfast.runs.checkpoint import Checkpoints
from kdfast.runs.csv_files import csv_path
from kdfast.runs.folder import STUDENT_ORIGIN, RunFolder
from kdfast.speed import read_speed_report
from kdfast.student import load_student

_REMOVE = "remove it, and it is made anew"


def take_final_weights(
    student: nn.Module, config: Config, progress: Progress, checkpoints: Checkpoints
) -> int:
    """Gives the student the weights that `io.final` names.

    Args:
        student: the trained model, with the last step's weights; changed in place.
        config: the run's config.
        progress: where the run is.
        checkpoints: those of the run; the best one is always kept.

    Returns:
        the step that the weights are of.

    Raises:
        CheckpointError: the best checkpoint is gone or damaged.
    """
    best = progress.best_step
    if config.io.final == "last" or best is None or best == progress.step:
        return progress.step
    path = checkpoints.path(best)
    if best not in checkpoints.steps():
        raise CheckpointError(
            f"io.final is 'best', and the checkpoint with the lowest held-out loss is gone; set io.final=last: {path}"
        )
    loaded: Any = load_student(path, freeze_embeddings=config.arch.freeze_embeddings)
    student.load_state_dict(loaded.state_dict())
    return best


def early_stop_note(config: Config, progress: Progress) -> str:
    """What to say of a run that ended before its last step; "" = it did not.

    Args:
        config: the run's config.
        progress: where it is.
    """
    if progress.step >= config.train.num_steps:
        return ""
    return (
        f"stopped early at step {progress.step}: the last {config.train.stop_after_validations} validations brought no "
        f"lower held-out loss than step {progress.best_step}'s (train.stop_after_validations)"
    )


def write_origin(
    directory: Path, config: Config, progress: Progress, step: int, shipped: Shipped | None
) -> None:
    """Writes beside the student where its weights come from, and the table of its quantised weights.

    Args:
        directory: the student's, with its weights in it.
        config: the run's config.
        progress: where it is.
        step: the step of the weights.
        shipped: how the phase under quantisation ended; None = the run had none.

    Raises:
        QATError: the saved weights are not those of the table.
        OSError: it cannot be written.
    """
    ended = "num_steps" if progress.step == config.train.num_steps else "stop_after_validations"
    of_qat = {} if shipped is None else shipped.origin(config)
    origin = {"step": step, "final": config.io.final, "ended": ended, **of_qat}
    write_document(directory / STUDENT_ORIGIN, origin)
    if shipped is not None and shipped.table is not None:
        write_table(shipped.table, directory)
        check_saved(directory)


def remove_undone_results(folder: RunFolder, step: int) -> None:
    """Removes what was measured on weights that a run undid when it went back: their steps will come again.

    Args:
        folder: the run folder.
        step: the step that it went back to.
    """
    after = folder.evaluation("after")
    for file in (after, csv_path(after), folder.gates, folder.quantization):
        file.unlink(missing_ok=True)
    if folder.speed.exists():
        measured = read_document(folder.speed, name="speed report", remedy=_REMOVE).get("step")
        if isinstance(measured, int) and measured > step:
            folder.speed.unlink()


def remove_older_results(folder: RunFolder, step: int) -> None:
    """Removes what is known of a former student: an evaluation of another step, and its gates.

    Args:
        folder: the run folder, with the former student.
        step: the step that the new student's weights are of.
    """
    origin = folder.student_origin
    if origin.exists() and read_document(origin, name="file", remedy=_REMOVE).get("step") == step:
        return
    folder.gates.unlink(missing_ok=True)
    folder.quantization.unlink(missing_ok=True)
    after = folder.evaluation("after")
    if after.exists() and read_document(after, name="evaluation", remedy=_REMOVE).get("step") != step:
        after.unlink()
        csv_path(after).unlink(missing_ok=True)


def measure_final_speed(probe: SpeedProbe, folder: RunFolder, step: int, display: Display) -> None:
    """Writes a new speed report if the newest one is of another step's weights.

    A report without a step is the user's own (`kdfast measure`): it is left.

    Args:
        probe: measures the student.
        folder: the run folder.
        step: the step that the student's weights are of.
        display: shows progress.

    Raises:
        OSError: the report cannot be written.
    """
    if not probe.prompts or not _is_of_another_step(folder, step):
        return
    with display.working("speed", len(probe.prompts)) as on_progress:
        report = probe.report_on(
            probe.prompts, probe.options.max_new_tokens, step, lambda done: on_progress(done, "")
        )
    write_document(folder.speed, report)


def _is_of_another_step(folder: RunFolder, step: int) -> bool:
    """Whether the run has no speed report of its own of this step; a damaged one is none."""
    if not folder.speed.exists():
        return True
    try:
        return bool(read_speed_report(folder.speed).get("step", step) != step)
    except DataError:
        return True
