"""The small run: it ends well, its loss falls, and every term that acts is in its metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdfast.config import Config
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import Json, SmallRun

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdfast.recipes.train.objective import Objective

DIVERGED = 2.0
"""A loss that ends above this multiple of its first value diverges; less may come from the rows of a few steps."""

_LAST_LINES = 8
_FINITE = ("train", "validation", "qat")
"""Kinds of lines; of the speed, a first call that never came is infinite."""


def run_ends_well(small: Any, run: SmallRun) -> Finding:
    """The run ended by itself, after all its steps, and every number that it wrote is one."""
    del small  # its failure is this check's, too
    steps = run.project.config.train.num_steps
    last = [line for line in run.output.splitlines() if line.strip()][-_LAST_LINES:]
    remedy = "mend what its last lines say: the real run would end so, too"
    if run.result.exit_code:
        return failed(f"the small run ended with exit code {run.result.exit_code}", remedy, *last)
    if run.result.step != steps:
        return failed(f"the small run made {run.result.step} of {steps} steps", remedy, *last)
    bad = next((line for line in run.lines if line["kind"] in _FINITE and _not_finite(line)), None)
    if bad is not None:
        names = ", ".join(_not_finite(bad))
        remedy = "lower optimizer.learning_rate, or look at the rows of that step"
        return failed(f"step {bad['step']}: {names} of the line {bad['kind']!r} is not finite", remedy)
    trained = [line for line in run.lines if line["kind"] == "train"]
    if len(trained) != steps:
        remedy = "look at metrics.jsonl in the run folder of the small run"
        return failed(f"{len(trained)} of {steps} steps are in the metrics", remedy)
    return passed(
        f"{steps} steps in {run.seconds:.0f} s, {len(run.lines)} lines of metrics, every loss finite"
    )


def loss_falls(run: SmallRun) -> Finding:
    """The loss at the end against that at the start, on held-out rows and on the steps themselves."""
    quant, steps = run.project.config.quant, run.project.config.train.num_steps
    until = steps
    if quant.enabled:  # rounding begins another loss
        until = quant.phase_start(steps) or steps
    held_out, trained = _losses(run, "validation", until), _losses(run, "train", until)
    held = len(held_out) > 1
    losses, name = (held_out, "held-out loss") if held else (trained, "training loss")
    if len(losses) < 2:
        return skipped("there are no two losses before quantisation begins")
    first, last = _first_and_last(losses)
    text = f"{name} {first:.4g} -> {last:.4g} in {until} steps"
    if not held:
        text += f" of different rows; {len(held_out)} held-out losses are there, and two could be compared"
    remedy = "lower optimizer.learning_rate, or look at the records: nothing is learned from them"
    if last > DIVERGED * first:
        return failed(f"the loss rises: {text}", remedy)
    if last >= first:
        more = "" if held else "; or set data.validation, whose loss says more"
        return warned(f"the loss does not fall: {text}", remedy + more)
    return passed(text)


def held_out_loss_is_measured(config: Config, run: SmallRun) -> Finding:
    """Every validation has a loss, and so some term acts on a held-out row."""
    lines = [line for line in run.lines if line["kind"] == "validation"]
    if config.data.validation is None:
        return skipped("data.validation is not set")
    if not lines:
        return failed("no validation is in the metrics", "report this as a fault of kdfast")
    if not all("loss" in line for line in lines):
        return warned(
            "no enabled loss term acts on a held-out row: validations have no loss",
            "hold out rows like those of data.train, for example by `kdfast data split`",
        )
    return passed(f"{len(lines)} validations, each with a held-out loss")


def terms_are_logged(
    config: Config,
    objective: Objective,
    batches: Sequence[Mapping[str, Tensor]],
    learner: Callable[[], nn.Module],
    run: SmallRun,
) -> Finding:
    """Every term with a position in the sample is in the metrics."""
    from kdfast.losses.combined.table import term_weights
    from kdfast.student import right_padded_width

    model: Any = learner()
    vocab = len(model.get_output_embeddings().weight)
    counts: dict[str, float] = {}
    for batch in batches:
        plan = objective.plan(batch, vocab_size=vocab, width=right_padded_width(batch["attention_mask"]))
        for name, count in plan.counts.items():
            counts[name] = counts.get(name, 0.0) + float(count)
    acting = [name for name in term_weights(config.kd) if counts.get(name)]
    logged = {name for line in run.lines if line["kind"] == "train" for name in line}
    lost = [name for name in acting if name not in logged]
    if lost:
        remedy = "report this as a fault of kdfast: the term would not be trained"
        return failed(
            f"{', '.join(lost)} has positions in the sample and is in no line of the metrics", remedy
        )
    if not acting:
        return skipped("no enabled term has a position in the sample")
    return passed(f"{', '.join(acting)} are in the metrics")


def _not_finite(line: Json) -> list[str]:
    """The names of numbers that are none: named by the line itself, or NaN in it."""
    own = [name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)]
    return [*line.get("not_finite", ()), *own]


def _losses(run: SmallRun, kind: str, until: int) -> list[float]:
    return [
        line["loss"]
        for line in run.lines
        if line["kind"] == kind and line["step"] <= until and "loss" in line
    ]


def _first_and_last(losses: Sequence[float]) -> tuple[float, float]:
    """Means over the first and the last third: single steps differ by their rows."""
    part = max(len(losses) // 3, 1)
    return sum(losses[:part]) / part, sum(losses[-part:]) / part


CHECKS = (
    Check(
        name="run.ends_well",
        proves="A run of a few steps with everything on comes to its end without a number that is none.",
        look=run_ends_well,
        owns=("run",),
        slow=True,
    ),
    Check(
        name="run.loss_falls",
        proves="The loss falls at this learning rate: on held-out rows, or at least on the steps of the small run.",
        look=loss_falls,
        slow=True,
    ),
    Check(
        name="run.held_out_loss_is_measured",
        proves="Validations say how well the student learns.",
        look=held_out_loss_is_measured,
        slow=True,
    ),
    Check(
        name="run.terms_are_logged",
        proves="Every enabled loss that acts on the sample is trained and written down.",
        look=terms_are_logged,
        slow=True,
    ),
)
