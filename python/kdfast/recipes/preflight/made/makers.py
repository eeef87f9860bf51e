"""How each object that checks look at is made. The parameters of a maker are the objects that it is made of."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdfast.config import Config
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.data.token_rows import Reader
from kdfast.errors import ConfigError
from kdfast.recipes.preflight.facts import MOST_PARAMETERS, PreflightRequest, Sample, SmallProject
from kdfast.recipes.preflight.made.fault_trials import try_faults
from kdfast.recipes.preflight.made.machine import Machine, look_at_machine
from kdfast.recipes.preflight.made.objects import Maker, Objects
from kdfast.recipes.preflight.made.sample import draw_sample
from kdfast.recipes.preflight.made.small_project import make_small_project, taught_project
from kdfast.recipes.preflight.made.small_run import export_small, run_disturbed, run_resumed, run_small
from kdfast.recipes.preflight.made.taught_sample import teach_sample
from kdfast.recipes.teach.plan import Plan
from kdfast.recipes.teach.plan import plan as plan_requests
from kdfast.recipes.train.live_teacher import FrozenTeacher, load_live_teacher, with_layers
from kdfast.recipes.train.objective import Objective
from kdfast.shapes import assign_shapes
from kdfast.student import build_student, estimate, read_pieces
from kdfast.student.estimate import meta_student
from kdfast.teacher import model_directory
from kdfast.teacher.api.journal import Journal


def make_reader(config: Config) -> Reader:
    """Tokenizer, template and format of calls."""
    return Reader.of(config.data)


def make_plan(config: Config) -> Plan | None:
    """The requests to a teacher behind an API; None = the config has no such teacher."""
    files = config.teacher.files
    return plan_requests(config, files) if files is not None and config.teacher.kind == "api" else None


def make_unanswered(config: Config, plan: Plan | None) -> bool:
    """Whether `data.train` names answers of the teacher that are still to come, all of them or some."""
    files = config.teacher.files
    if files is None or files.out not in config.data.train_files:
        return False
    if plan is None or not files.out.exists():
        return not files.out.exists()
    if not files.journal.exists():
        return True
    with Journal(files.journal, read_only=True) as journal:
        return any(journal.answered(one.request.hash) is None for one in plan.asked)


def make_written_rows(config: Config, unanswered: bool) -> KDDataset | None:
    """All rows that are there to train on, without answers of which more are to come; None = there are none yet."""
    out = config.teacher.out
    written = [file for file in config.data.train_files if file != out or not unanswered]
    return KDDataset.from_config(config.data, written) if written else None


def make_held_out_rows(config: Config) -> KDDataset | None:
    """All held-out rows."""
    validation = config.data.validation
    return None if validation is None else KDDataset.from_config(config.data, validation)


def make_small(
    config: Config,
    request: PreflightRequest,
    work: Path,
    sample: Sample,
    figures: dict[str, int],
    machine: Machine,
    objects: Objects,
) -> SmallProject:
    """The files and config of the small run; the fake teacher answers first, if nobody has yet.

    Raises:
        ConfigError: the student itself is asked for, and does not fit.
    """
    if request.full:
        _check_full(figures, machine, work)
    if sample.asked:
        taught = objects.get("taught")
        return taught_project(config, request, work, sample, taught, figures)
    return make_small_project(config, request, work, sample, figures)


def _check_full(figures: dict[str, int], machine: Machine, work: Path) -> None:
    """Checks that the student itself fits the memory, and its checkpoints the scratch folder's disk."""
    needed = sum(figures[f"{name}_bytes"] for name in ("weights", "gradients", "optimizer"))
    if needed > machine.memory_available:
        raise ConfigError(
            f"--full: training the student itself needs {needed / 1e9:.1f} GB at least and "
            f"{machine.memory_available / 1e9:.1f} GB are free; leave --full out: a small student takes its place"
        )
    room = 5 * figures["checkpoint_bytes"]  # those of the run, and of the one that is resumed
    free = shutil.disk_usage(work).free
    if room > free:
        raise ConfigError(
            f"--full: the checkpoints of the student itself need {room / 1e9:.1f} GB in the scratch folder and its "
            f"disk has {free / 1e9:.1f} GB free; set TMPDIR to a larger one, or leave --full out: {work}"
        )


def make_sample_rows(small: SmallProject) -> KDDataset:
    """The sampled records as the small run reads them."""
    config = small.config
    rows = KDDataset.from_config(config.data, config.data.train_files)
    store = config.teacher.store
    if store is not None:
        rows.open_teacher(next(store.glob("*.teacher.arrow")))
    return rows


def make_train_rows(written_rows: KDDataset | None, sample: Sample, objects: Objects) -> KDDataset:
    """All rows to train on; those of the sample, if answers are still to come."""
    rows: KDDataset = objects.get("sample_rows") if written_rows is None or sample.asked else written_rows
    return rows


def make_sampled(sample_rows: KDDataset) -> list[dict[str, Any]]:
    """The rows of the sample as the token store has them."""
    return [sample_rows.store.row(int(row)) for row in sample_rows.rows]


def make_batches(sample_rows: KDDataset, config: Config) -> list[dict[str, Tensor]]:
    """Micro-batches of the sample, each of one shape."""
    shapes = assign_shapes(sample_rows.lengths, sample_rows.shapes)
    size = min(config.train.micro_batch_size, 4)
    batches = []
    for shape in sorted(set(shapes.tolist())):
        rows = [index for index in range(len(sample_rows)) if shapes[index] == shape]
        batches += [
            collate_kd_batch(sample_rows.__getitems__(rows[start : start + size]))
            for start in range(0, len(rows), size)
        ]
    return batches


def make_student(
    config: Config, small: SmallProject, figures: dict[str, int], machine: Machine, request: PreflightRequest
) -> nn.Module:
    """The student itself if it is not too large, else the stand-in."""
    return _build(config if _is_looked_at(figures, machine, request) else small.config)


def make_student_note(
    small: SmallProject, figures: dict[str, int], machine: Machine, request: PreflightRequest
) -> str:
    """What stands in for the student among the checks of the model; "" = it is the student itself."""
    return "" if _is_looked_at(figures, machine, request) else small.stand_in


def _is_looked_at(figures: dict[str, int], machine: Machine, request: PreflightRequest) -> bool:
    """Whether the student itself is loaded for the checks of the model."""
    fits = 2 * figures["weights_bytes"] < machine.memory_available
    return request.full or (figures["parameters"] <= MOST_PARAMETERS and fits)


def make_learner(small: SmallProject) -> Callable[[], nn.Module]:
    """Builds the student of the small run, with the same weights each time."""
    built = _build(small.config)
    return lambda: copy.deepcopy(built)


def _build(config: Config) -> nn.Module:
    arch, teacher = config.arch, config.teacher.model
    return build_student(
        arch,
        teacher_dir=model_directory(teacher) if arch.init == "teacher" and teacher is not None else None,
        vocab_size=len(read_pieces(config.data.tokenizer)),
        max_position_embeddings=config.data.shapes[-1],
        seed=config.train.seed,
    )


def make_live_teacher(small: SmallProject) -> FrozenTeacher | None:
    """The model beside the student of the small run, if the config has one."""
    return load_live_teacher(small.config, torch.device("cpu"))


def make_objective(
    small: SmallProject,
    sample_rows: KDDataset,
    learner: Callable[[], nn.Module],
    live_teacher: FrozenTeacher | None,
) -> Objective:
    """The loss of the small run."""
    config, kd = small.config, small.config.kd
    if live_teacher is not None:
        model: Any = learner()
        depth = model.config.num_hidden_layers
        kd = with_layers(kd, config.arch, student=depth, teacher=live_teacher.depth)
    warmup = kd.early_tool_warmup_steps
    return Objective.of(
        sample_rows,
        kd,
        num_steps=config.schedule_steps,
        early_tool_warmup_steps=config.optimizer.warmup_steps if warmup is None else warmup,
        prefix_tokens=config.data.prefix_tokens,
        live_teacher=live_teacher is not None,
    )


MAKERS: Mapping[str, Maker] = {
    "reader": make_reader,
    "machine": look_at_machine,
    "plan": make_plan,
    "unanswered": make_unanswered,
    "written_rows": make_written_rows,
    "held_out_rows": make_held_out_rows,
    "sample": draw_sample,
    "figures": estimate,
    "form": meta_student,
    "taught": teach_sample,
    "small": make_small,
    "sample_rows": make_sample_rows,
    "train_rows": make_train_rows,
    "sampled": make_sampled,
    "batches": make_batches,
    "student": make_student,
    "student_note": make_student_note,
    "learner": make_learner,
    "live_teacher": make_live_teacher,
    "objective": make_objective,
    "fault_trials": try_faults,
    "run": run_small,
    "resumed": run_resumed,
    "disturbed": run_disturbed,
    "exports": export_small,
}
