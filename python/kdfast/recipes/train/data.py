"""Opening what a run reads: the training and the held-out rows, and the teacher's log-probabilities of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from kdfast.config import Config, DataConfig
from kdfast.data import KDDataset
from kdfast.distributed.ranks import Ranks
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.first_look.stores import not_taught, only_store
from kdfast.recipes.train.inputs import (
    check_inputs,
    check_live_ids,
    check_shape_weights,
    held_out_loss_problem,
)
from kdfast.recipes.train.live_teacher import shared_ids
from kdfast.recipes.train.overlap import check_overlap, duplicates_note
from kdfast.student import read_pieces
from kdfast.teacher import model_directory, model_fingerprint
from kdfast.teacher.local.plan import plan_teaching


@dataclass(frozen=True)
class RunData:
    """The rows of a run.

    Attributes:
        train: the training rows.
        validation: the held-out rows; None where the config names none.
    """

    train: KDDataset
    validation: KDDataset | None


def open_data(config: Config, ranks: Ranks, console: Console) -> RunData:
    """Opens both datasets and the teacher store, and checks that the enabled losses find what they need.

    The first rank builds token stores that are missing; the others wait for it.

    Args:
        config: the run's config.
        ranks: this process's place among those that share the run.
        console: where the number of taught rows is printed.

    Raises:
        ConfigError: the config asks for what the data does not have; no teacher store fits.
        DataError: bad data, or no row to train or to validate on.
    """
    if not ranks.main:
        ranks.wait()
    data, store = config.data, config.teacher.store
    train = KDDataset.from_config(data, data.train_files)
    taught = config.kd.reads_store(live_teacher=config.teacher.live)
    if taught and store is not None:
        train.open_teacher(teacher_file(config, store, train))
    validation = None
    if data.validation is not None:
        validation = KDDataset.from_config(data, data.validation)
        if taught and store is not None and train.teacher is not None:
            validation.open_teacher(train.teacher.path)
    if ranks.main:
        ranks.wait()
    if ranks.main and train.template.note:
        console.print(f"[yellow]chat template[/yellow]: {escape(train.template.note)}", highlight=False)
    _check_rows(config.data, train, validation)
    _check_live_teacher(config, train, validation)
    _check(config, ranks, train, console)
    note = duplicates_note(train) if ranks.main else ""
    if note:
        console.print(f"[yellow]note[/yellow]: {escape(note)}", highlight=False)
    if validation is not None:
        for warning in (check_overlap(train, validation), held_out_loss_problem(config, validation)):
            if warning and ranks.main:
                console.print(f"[yellow]warning[/yellow]: {escape(warning)}", highlight=False)
    return RunData(train, validation)


def _check_rows(data: DataConfig, train: KDDataset, validation: KDDataset | None) -> None:
    if not len(train):
        raise DataError("no record is left to train on", ", ".join(map(str, data.train_files)))
    if validation is not None and not len(validation):
        raise DataError("no record is left to validate on (data.validation)", str(data.validation))


def _check_live_teacher(config: Config, train: KDDataset, validation: KDDataset | None) -> None:
    """Checks that a teacher beside the student reads the same ids, before its weights are loaded."""
    config.kd.check_live_teacher(config.teacher.live)
    if not config.teacher.live or config.teacher.model is None:
        return
    usable = shared_ids(config, model_directory(config.teacher.model))
    if usable < len(read_pieces(config.data.tokenizer)):
        for rows in (train, validation):
            if rows is not None:
                check_live_ids(rows, usable)


def _check(config: Config, ranks: Ranks, train: KDDataset, console: Console) -> None:
    rows = config.train.batch_size
    if rows < ranks.world:
        raise ConfigError(
            f"train.micro_batch_size: a step needs a row for each of the {ranks.world} ranks; raise it or "
            f"train.gradient_accumulation_steps, the step has {rows}"
        )
    check_shape_weights(config.data, train.lengths)
    known = check_inputs(config.kd, train, live_teacher=config.teacher.live)
    if known and train.teacher is not None:
        console.print(
            f"{known} of {len(train)} training rows have the teacher's log-probabilities", highlight=False
        )


def teacher_file(config: Config, directory: Path, train: KDDataset) -> Path:
    """The teacher store that this config's teacher writes; without a model, the only one in the directory.

    Args:
        config: names the teacher and its settings.
        directory: `teacher.store`.
        train: the training rows, from which demonstrations are chosen.

    Raises:
        ConfigError: there is none of this teacher and these settings.
        TeacherError: the teacher is missing or damaged.
    """
    settings = config.teacher
    if settings.model is None:
        return only_store(directory)
    model = model_directory(settings.model)
    plan = plan_teaching(settings, model_fingerprint(model), train, shared_ids(config, model))
    file = train.teacher_file(directory, plan.fingerprint)
    if not file.exists():
        raise not_taught(directory)
    return file
