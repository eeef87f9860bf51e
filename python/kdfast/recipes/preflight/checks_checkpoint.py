"""What the small run saved: whole checkpoints, a resume that changes nothing, a student that others can load."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdfast.data.token_rows import Reader
from kdfast.errors import CheckpointError
from kdfast.recipes.preflight.check import Check, Finding, failed, passed
from kdfast.recipes.preflight.facts import SmallRun
from kdfast.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-6
"""A loss or weight of a resumed run may be so far off, relative to its size and to 1."""

_LOGITS_TOLERANCE = 1e-4
_PROBE_TOKENS = 32
_FAULT = "report this as a fault of kdfast, with the small run's folder"


def checkpoints_are_whole(run: SmallRun) -> Finding:
    """Every checkpoint can be read, and the newest is of the last step."""
    from kdfast.runs.checkpoint import read_state

    folder = RunFolder(run.project.config.io.run_dir)
    steps = sorted(
        int(path.name.removeprefix("step_"))
        for path in folder.checkpoints.glob("step_*")
        if path.name.removeprefix("step_").isdecimal()
    )
    if not steps or steps[-1] != run.result.step:
        newest = f"the newest is of step {steps[-1]}" if steps else "there is none"
        remedy = "see that io.run_dir can be written and has room"
        return failed(f"no checkpoint of the last step {run.result.step}: {newest}", remedy)
    shown = []
    for step in steps:
        read_state(folder.checkpoint(step))
        size = sum(file.stat().st_size for file in folder.checkpoint(step).rglob("*") if file.is_file())
        shown.append(f"step {step}: {size / 1e6:.1f} MB")
    return passed(f"{len(steps)} checkpoint(s), each with all its files: {', '.join(shown)}")


def resume_reads_the_same_rows(run: SmallRun, resumed: SmallRun) -> Finding:
    """Every step of the resumed run has the shape, the tokens and the loss that it has without a stop."""
    whole, other = (
        {int(one["step"]): one for one in each.lines if one["kind"] == "train"} for each in (run, resumed)
    )
    twice = len([1 for one in resumed.lines if one["kind"] == "train"]) - len(other)
    if whole.keys() != other.keys() or twice:
        what = (
            f"{twice} step(s) twice"
            if twice
            else f"steps {sorted(whole.keys() ^ other.keys())[:5]} in one run only"
        )
        return failed(f"the resumed run has {what}", _FAULT)
    for step, line in whole.items():
        for name in ("shape", "tokens"):
            if line.get(name) != other[step].get(name):
                text = (
                    f"step {step} reads {line.get(name)} {name}, and {other[step].get(name)} after a resume"
                )
                return failed(f"{text}: data is skipped or read twice", _FAULT)
        losses = line.get("loss", math.nan), other[step].get("loss", math.nan)
        if not math.isclose(*losses, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            text = f"the loss of step {step} is {losses[0]:.8g}, and {losses[1]:.8g} after a resume"
            return failed(f"{text}: other rows, or another state", _FAULT)
    equal = sum(line["loss"] == other[step]["loss"] for step, line in whole.items())
    return passed(
        f"{len(whole)} steps read the same tokens; {equal} losses are equal to the last bit, the others to 1e-6"
    )


def resume_gives_the_same_student(run: SmallRun, resumed: SmallRun) -> Finding:
    """The final weights with and without a stop in the middle."""
    import torch

    folders = [each.result.student for each in (run, resumed)]
    if folders[0] is None or folders[1] is None:
        which = "run" if folders[0] is None else "resumed run"
        return failed(f"the {which} left no student", "mend what run.ends_well says")
    whole, other = _weights(folders[0]), _weights(folders[1])
    if whole.keys() != other.keys():
        return failed(f"only one student has {sorted(whole.keys() ^ other.keys())[0]}", _FAULT)
    off = {name: float((whole[name] - other[name]).abs().max()) for name in whole if whole[name].numel()}
    worst = max(off, key=lambda name: off[name] if math.isfinite(off[name]) else math.inf)
    if any(not torch.allclose(whole[name], other[name], rtol=TOLERANCE, atol=TOLERANCE) for name in whole):
        return failed(f"after a resume {worst} differs by up to {off[worst]:.3g}", _FAULT)
    equal = sum(not difference for difference in off.values())
    return passed(f"{equal} of {len(whole)} tensors are equal to the last bit, the others to 1e-6")


def student_loads_in_transformers(run: SmallRun, learner: Callable[[], nn.Module]) -> Finding:
    """The final student as transformers reads it gives the logits of its saved weights."""
    import torch

    from kdfast.pretrained import check_readable, load_causal_lm

    student = run.result.student
    if student is None:
        return failed("the small run left no student", "mend what run.ends_well says")
    check_readable(student, error=CheckpointError, name="student")
    loaded: Any = load_causal_lm(student, dtype=torch.float32, error=CheckpointError, name="student")
    own: Any = learner()
    weights = _weights(student)
    lacking, strange = own.load_state_dict(weights, strict=False)
    if strange or set(lacking) - {"lm_head.weight"}:  # a tied output layer is not saved a second time
        return failed(f"the saved weights lack or add {[*strange, *lacking][0]}", _FAULT)
    own.train(False)
    ids = torch.arange(3, 3 + _PROBE_TOKENS)[None] % len(loaded.get_output_embeddings().weight)  # [1,T]
    with torch.no_grad():
        off = float((loaded(input_ids=ids).logits - own(input_ids=ids).logits).abs().max())
    if not off <= _LOGITS_TOLERANCE:
        return failed(f"transformers gives logits that are {off:.3g} off those of the saved weights", _FAULT)
    return passed(
        f"transformers reads {len(weights)} tensors; its logits differ by at most {off:.1g} from theirs"
    )


def template_is_kept(run: SmallRun, reader: Reader) -> Finding:
    """The student carries the template that it was trained with."""
    if run.result.student is None:
        return failed("the small run left no student", "mend what run.ends_well says")
    template = reader.template
    saved = {"chat_template.jinja": template.source}
    if template.tool_use is not None:
        saved["additional_chat_templates/tool_use.jinja"] = template.tool_use
    for name, source in saved.items():
        file = run.result.student / name
        if not file.is_file():
            return failed(f"the student has no {name}", _FAULT)
        if file.read_text(encoding="utf-8") != source:
            remedy = "train again: a student that is asked by another template answers worse"
            return failed(f"the student's {name} is not the template that it was trained with", remedy)
    return passed(f"{' and '.join(saved)}: the {len(template.source)} characters that rendered the records")


def _weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a saved student.

    Raises:
        CheckpointError: a file is damaged, or there is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for file in sorted(directory.glob("model*.safetensors")):
        try:
            found |= load_file(file)
        except SafetensorError as cause:
            raise CheckpointError(f"the student's weights are damaged ({cause}): {file}") from cause
    if not found:
        raise CheckpointError(f"the student has no weights: {directory}")
    return found


CHECKS = (
    Check(
        name="checkpoint.checkpoints_are_whole",
        proves="Checkpoints are written with all their files, the last step's too.",
        look=checkpoints_are_whole,
        slow=True,
    ),
    Check(
        name="checkpoint.resume_reads_the_same_rows",
        proves="A run that is stopped and resumed reads each row as if it had not been stopped.",
        look=resume_reads_the_same_rows,
        owns=("resumed",),
        slow=True,
    ),
    Check(
        name="checkpoint.resume_gives_the_same_student",
        proves="A run that is stopped and resumed ends with the same weights.",
        look=resume_gives_the_same_student,
        slow=True,
    ),
    Check(
        name="checkpoint.student_loads_in_transformers",
        proves="The final student loads in transformers, and computes what was trained.",
        look=student_loads_in_transformers,
        slow=True,
    ),
    Check(
        name="checkpoint.template_is_kept",
        proves="The student is saved with the chat template that it was trained with.",
        look=template_is_kept,
        slow=True,
    ),
)
