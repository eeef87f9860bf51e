"""At the end of a run under quantisation: what it gained over quantising after training, written and printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from kdfast.errors import DivergedError, QATError
from kdfast.files import read_document, write_document
from kdfast.qat import apply_qat_to_model, convert_qat
from kdfast.quantized import QuantPlan, plan_model
from kdfast.recipes.train.loop import Loop
from kdfast.recipes.train.qat.arms import QUANTIZATION_KIND, SCHEMA_VERSION, compare_arms, mark_failed
from kdfast.recipes.train.qat.difference import QAT
from kdfast.recipes.train.qat.float_branch import branch_student, train_float_branch
from kdfast.recipes.train.qat.measure import Arm
from kdfast.recipes.train.qat.phase import QatPhase
from kdfast.recipes.train.qat.self_teaching import stop_self_teaching
from kdfast.recipes.train.qat.shipping import Shipped
from kdfast.recipes.train.step import StudentLoss

_FLOAT_BYTES = 4

FLOAT_ARM = "float, post-training"
"""The name of the float student that made the same steps."""


def compare_at_end(
    loop: Loop, phase: QatPhase, shipped: Shipped, file: Path, step: int
) -> dict[str, Any] | None:
    """Measures the quantised students, and writes the comparison. All ranks call it; the first one measures.

    A file of the same step is read instead: a run that is resumed after its end measures nothing anew.

    Args:
        loop: the run's, after its last step; the student is what ships.
        phase: its phase under quantisation.
        shipped: how that ended.
        file: where the comparison goes, JSON.
        step: the step of the student's weights.

    Returns:
        the comparison; None on other ranks than the first.

    Raises:
        CheckpointError: the checkpoint at which quantisation began is gone or damaged.
        DataError: the file, or a held-out record, is damaged.
        OSError: it cannot be written.
    """
    ranks, config = loop.runner.ranks, loop.config
    wants_branch = config.quant.compare_float and not shipped.failed
    saved = _saved(file, step, shipped, wants_branch) if ranks.main else None
    if not ranks.any(ranks.main and saved is None):
        return saved
    loop.runner = stop_self_teaching(loop.runner)
    start = loop.checkpoints.path(phase.first_step)
    plan = plan_model(loop.student, config.quant)
    size = _bytes(loop.student, plan)
    arms = [
        Arm(
            name="start, post-training",
            title=f"step {phase.first_step}, quantised after training",
            load=lambda: _quantized(branch_student(start, config, loop.runner), plan, loop),
            bytes=size,
        )
    ]
    branch, fault = _float_branch(loop, start, plan) if wants_branch else (None, "")
    if branch is not None:
        steps = loop.progress.step - phase.first_step
        title = f"{steps} steps in float, quantised after training"
        arms.append(Arm(name=FLOAT_ARM, title=title, load=lambda: branch, bytes=size))
    if not ranks.main:
        return None
    if shipped.table is not None:
        student: Any = loop.student
        arms.append(Arm(name=QAT, title="trained under quantisation", load=lambda: student, bytes=size))
    reference = branch_student(start, config, loop.runner)
    reference.requires_grad_(False).eval()
    document = compare_arms(
        arms,
        reference,
        runner=loop.runner,
        dataset=loop.validation_data,
        config=config,
        display=loop.display,
        step=step,
    )
    if fault:
        document["judgement"].append(
            f"there is no float student of the same steps (quant.compare_float): {fault}"
        )
    if shipped.failed:
        document = mark_failed(document, shipped.reasons)
    write_document(file, document)
    return document


def _float_branch(loop: Loop, start: Path, plan: QuantPlan) -> tuple[Any, str]:
    """The float student of the same steps, quantised after training; or None and why there is none."""
    bare = loop.runner.bare
    beside = StudentLoss(branch_student(start, loop.config, loop.runner), bare.objective, bare.teacher)
    try:
        model = train_float_branch(start, beside.to(loop.runner.device), loop)
        return _quantized(model, plan, loop), ""
    except (DivergedError, QATError) as error:  # the student that ships is saved; this is only its control
        return None, str(error)


def _saved(file: Path, step: int, shipped: Shipped, wants_branch: bool) -> dict[str, Any] | None:
    """A comparison of the same student that has all that is asked for."""
    if not file.exists():
        return None
    found = read_document(file, name="comparison", remedy="remove it, and it is made anew")
    wanted = (QUANTIZATION_KIND, SCHEMA_VERSION, step, "failed" if shipped.failed else "kept")
    given = tuple(found.get(name) for name in ("kind", "schema_version", "step", "status"))
    if given != wanted or not _is_whole(found):
        return None
    there = FLOAT_ARM in [arm["name"] for arm in found["arms"]]
    there = there or any("quant.compare_float" in line for line in found["judgement"])
    return found if there or not wants_branch else None


def _is_whole(found: dict[str, Any]) -> bool:
    """Whether a file that was written by us, and perhaps edited since, has what is printed; if not, it is made anew."""
    arms, judgement = found.get("arms"), found.get("judgement")
    return (
        isinstance(arms, list)
        and all(isinstance(arm, dict) and {"name", "title", "bytes"} <= arm.keys() for arm in arms)
        and isinstance(judgement, list)
        and all(isinstance(line, str) for line in judgement)
    )


def _quantized(model: Any, plan: QuantPlan, loop: Loop) -> Any:
    """A float model quantised after training, in place."""
    return convert_qat(apply_qat_to_model(model, loop.config.quant, plan=plan)).model


def _bytes(model: nn.Module, plan: QuantPlan) -> int:
    """Bytes of the weights as stored: what is quantised, and the rest in float32."""
    floats = {name: one.numel() for name, one in model.named_parameters() if name in plan.floats}
    return plan.stored_bytes + _FLOAT_BYTES * sum(floats.values())
