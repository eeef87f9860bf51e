"""Checks of learning: gradients reach the weights, one batch is learned, rates do something, batches add up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdfast.config import Config
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.errors import ConfigError, DivergedError, QATError
from kdfast.losses import LossSettings, StepWeights
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import SmallProject
from kdfast.recipes.preflight.looking.cheap_rows import MOST_ROWS, affordable, cheapest_rows
from kdfast.recipes.preflight.looking.code_reach import code_reach
from kdfast.recipes.preflight.looking.loss_places import Batch
from kdfast.recipes.preflight.looking.loss_trial import Trials, labels_in, open_states, rows_of, runner_of
from kdfast.recipes.train.live_teacher import FrozenTeacher
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.optimizer import adamw
from kdfast.recipes.train.qat.shipping import FEW_CODES
from kdfast.recipes.train.schedule import learning_rate, learning_rate_under_qat
from kdfast.recipes.train.step import Runner
from kdfast.recipes.train.update import update

Learner = Callable[[], nn.Module]
Teacher = FrozenTeacher | nn.Module | None
_STEPS = 40
_SMALL, _SMALL_RATE, _LARGE_RATE = 20_000_000, 1e-2, 1e-4
"""Up to how many parameters a student is trained at the first rate at least, and a larger one at the second."""
_SAME = 1e-5
_FEW_MOVED, _HALF_MOVED = 0.01, 0.5
_NOTHING = "no row of the sample has what the loss terms act on"
_FROZEN = "no weight of the student is trained: see learning.gradient_reaches_the_weights"
_DETACHED = "the loss has no gradient: see losses.gradient_is_where_it_acts"


@dataclass(frozen=True)
class _Lesson:
    """A fresh student with its loss, and one batch that it can learn from.

    Attributes:
        runner: the student with its loss.
        batch: the batch.
        obstacle: why nothing can be learned; "" = it can.
    """

    runner: Runner
    batch: Batch
    obstacle: str = ""

    @classmethod
    def of(
        cls,
        learner: Learner,
        objective: Objective,
        batches: Sequence[Batch],
        live_teacher: Teacher,
        least: int = 1,
    ) -> _Lesson:
        """A batch with many rows on which a term acts that has a weight from the first step on.

        `least` rows may cost more than others: see `affordable`.
        """
        trials = Trials.of(learner, objective, batches, live_teacher)
        runner, looked = trials.runner, trials.looked
        if looked.trouble:
            return cls(runner, {}, looked.trouble)
        weights = objective.weights(0)
        usable = [
            batch
            for batch, counts in zip(batches, looked.counts, strict=True)
            if any(weights[name] and count for name, count in counts.items())
        ]
        if not usable:
            return cls(runner, {}, _NOTHING)
        largest = min(usable, key=lambda batch: (-min(len(batch["labels"]), MOST_ROWS), labels_in(batch)))
        # a batch may also hold rows on which no term acts, such as ground truths beside the teacher's answers
        acted_on = [
            row for row in range(len(largest["labels"])) if _acts(runner, rows_of(largest, [row]), weights)
        ]
        batch = affordable(rows_of(largest, acted_on), len(runner.bare.student.lm_head.weight), least)
        if not any(parameter.requires_grad for parameter in runner.bare.student.parameters()):
            return cls(runner, batch, _FROZEN)
        plan = runner.plan(batch)
        step = StepWeights(weights, plan.counts, open_states(objective))
        total = runner.loss(runner.model, batch, plan, step).total
        return cls(runner, batch, "" if total.requires_grad else _DETACHED)


def _acts(runner: Runner, batch: Batch, weights: Mapping[str, float]) -> bool:
    """Whether a term with a weight has a position in a batch."""
    return any(weights[name] and count for name, count in runner.plan(batch).counts.items())


def gradient_reaches_the_weights(
    learner: Learner,
    objective: Objective,
    batches: Sequence[Batch],
    live_teacher: Teacher,
    small: SmallProject,
) -> Finding:
    """One backward pass; which weights are trained, and which of them got no gradient."""
    lesson = _Lesson.of(learner, objective, batches, live_teacher)
    student, kept = lesson.runner.bare.student, small.config.arch.freeze_embeddings
    embedding = student.get_input_embeddings().weight
    frozen = [
        name
        for name, parameter in student.named_parameters()
        if not parameter.requires_grad and not (kept and parameter is embedding)
    ]
    if frozen:
        return failed(
            f"{len(frozen)} tensors of the student are frozen: {_some(frozen)}",
            "look at arch.freeze_embeddings (which freezes the embeddings alone) and at what built the student",
        )
    if lesson.obstacle:
        return skipped(lesson.obstacle)
    lesson.runner.step([lesson.batch], 0, open_states(objective))
    trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    missed = [name for name, one in trained.items() if one.grad is None or not bool(one.grad.any())]
    if missed:
        return failed(
            f"{len(missed)} of {len(trained)} trained tensors get no gradient: {_some(missed)}",
            "something in the student's forward pass cuts the graph: look for detach() and no_grad()",
        )
    numbers = sum(one.numel() for one in trained.values())
    note = ", the embeddings are kept (arch.freeze_embeddings)" if kept else ""
    return passed(f"all {len(trained)} trained tensors ({numbers:,} weights) get a gradient{note}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def one_batch_overfits(
    learner: Learner,
    objective: Objective,
    batches: Sequence[Batch],
    live_teacher: Teacher,
    small: SmallProject,
) -> Finding:
    """Learns one batch by heart: a term that can reach 0 must halve. A stand-in learns its random embeddings, too."""
    lesson = _Lesson.of(learner, objective, batches, live_teacher)
    if lesson.obstacle:
        return skipped(lesson.obstacle)
    counts = lesson.runner.plan(lesson.batch).counts
    term = next((name for name in _TO_ZERO if counts.get(name)), None)
    if term is None:
        return skipped(f"no enabled term can fall to 0 on this sample: {', '.join(counts)}")
    alone, optimizing = _alone(objective, term), small.config.optimizer
    runner = runner_of(learner(), alone, live_teacher)
    if small.stand_in:
        runner.bare.student.get_input_embeddings().requires_grad_(True)
    size = sum(parameter.numel() for parameter in runner.model.parameters())
    rate = max(optimizing.learning_rate, _SMALL_RATE if size <= _SMALL else _LARGE_RATE)
    optimizer = adamw(runner.model, replace(optimizing, learning_rate=rate, weight_decay=0.0))
    first = last = 0.0
    what = f"{term} of {len(lesson.batch['labels'])} rows ({counts[term]:g} positions)"
    for step in range(_STEPS + 1):
        try:
            last = update(runner, optimizer, [lesson.batch], 0, open_states(alone), 1.0).values[term]
        except DivergedError:
            return failed(f"{what} is not finite after {step} steps at {rate:g}, it was {first:.3f}", _LOOK)
        first = last if step == 0 else first
        if last <= first / 2:
            return passed(f"{what} falls from {first:.3f} to {last:.3f} in {step} steps at {rate:g}")
    return failed(f"{what} is {last:.3f} after {_STEPS} steps at {rate:g}, it was {first:.3f}", _LOOK)


_TO_ZERO = ("ce_truth", "ce_teacher", "kl")
"""Terms that are 0 for a student that has learned its batch by heart; together they contradict each other."""
_LOOK = "the student cannot learn even these rows: look at the checks of batch, model and losses first"


def _alone(objective: Objective, term: str) -> Objective:
    """The objective with the weight of one term, constant."""
    kd = objective.settings.kd
    off = {
        name: 0.0
        for name in kd.names()
        if name.endswith("_weight")
        and name not in ("name_weight", "args_weight")
        and not name.endswith("_final_weight")
    }
    finals = {name: None for name in kd.names() if name.endswith("_final_weight")}
    kept = {f"{term}_weight": getattr(kd, f"{term}_weight")}
    settings: LossSettings = replace(objective.settings, kd=replace(kd, **off | finals | kept))
    return replace(objective, settings=settings)


def rate_changes_weights(
    learner: Learner,
    objective: Objective,
    batches: Sequence[Batch],
    live_teacher: Teacher,
    config: Config,
) -> Finding:
    """One update at the highest rate of the config's own schedule: which weights are other numbers afterwards."""
    lesson = _Lesson.of(learner, objective, batches, live_teacher)
    if lesson.obstacle:
        return skipped(lesson.obstacle)
    key, rate = _highest_rate(config)
    model = lesson.runner.model
    optimizer = adamw(model, replace(config.optimizer, learning_rate=rate))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    limit = config.optimizer.max_grad_norm
    update(lesson.runner, optimizer, [lesson.batch], 0, open_states(objective), limit)
    moved = reached = 0
    for parameter, old in zip(trained, before, strict=True):
        state = optimizer.state.get(parameter, {})
        if "exp_avg" in state:
            pulled = state["exp_avg"] != 0
            reached += int(pulled.sum())
            moved += int(((parameter.detach() != old) & pulled).sum())
    share = moved / max(reached, 1)
    text = f"one update at {rate:g} changes {share:.1%} of the {reached:,} weights that it pulls at"
    if share < _FEW_MOVED:
        return failed(text, f"raise {key}: so small a step is lost in the rounding of fp32")
    if share < _HALF_MOVED:
        return warned(text, f"raise {key}: most steps are lost in the rounding of fp32")
    return passed(text)


def _highest_rate(config: Config) -> tuple[str, float]:
    """The key of the learning rate, and the highest rate that the run reaches before quantisation, or under it."""
    quant, steps = config.quant, config.train.num_steps
    float_steps = quant.phase_start(steps) if quant.enabled else steps
    if not float_steps:
        return "quant.learning_rate", quant.peak
    best = min(max(config.optimizer.warmup_steps - 1, 0), float_steps - 1)
    return "optimizer.learning_rate", learning_rate(best, config.schedule_steps, config.optimizer)


def accumulation_adds_up(
    learner: Learner, objective: Objective, sample_rows: KDDataset, live_teacher: Teacher
) -> Finding:
    """Up to four rows with few labels at once, and one by one: the same loss and the same gradient."""
    if len(sample_rows) < 2:
        return skipped("the sample has one row")
    whole = collate_kd_batch(sample_rows.__getitems__(cheapest_rows(sample_rows)))
    lesson = _Lesson.of(learner, objective, [whole], live_teacher, least=2)
    if lesson.obstacle:
        return skipped(lesson.obstacle)
    runner, rows = lesson.runner, len(lesson.batch["labels"])
    if rows < 2:
        return skipped("the two rows of the sample with the fewest labels have too many for this check")
    parts = [rows_of(lesson.batch, [row]) for row in range(rows)]
    at_once = runner.step([lesson.batch], 0, open_states(objective)).values["loss"]
    together = _gradients(runner.model)
    one_by_one = runner.step(parts, 0, open_states(objective)).values["loss"]
    apart = _gradients(runner.model)
    size = float(together.norm())
    off = float((together - apart).norm()) / max(size, 1e-30)
    loss_off = abs(at_once - one_by_one) / max(abs(at_once), 1e-30)
    text = (
        f"{rows} rows at once and one by one: losses differ by {loss_off:.1e}, gradients by {off:.1e} of them"
    )
    if off <= _SAME and loss_off <= _SAME:
        return passed(text)
    return failed(
        text,
        "do not train with train.gradient_accumulation_steps above 1: the parts of a step do not add up; report it",
    )


def _gradients(model: nn.Module) -> Tensor:
    """All gradients as one vector; they are cleared."""
    found = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
    model.zero_grad(set_to_none=True)
    return torch.cat(found).double()


def schedule(config: Config) -> Finding:
    """Learning rate and weights of the losses at the steps where they turn."""
    optimizer, steps = config.optimizer, config.train.num_steps
    ramp = config.kd.early_tool_warmup_steps
    ramp = optimizer.warmup_steps if ramp is None else ramp
    objective = Objective(
        settings=LossSettings(kd=config.kd), num_steps=config.schedule_steps, early_tool_warmup_steps=ramp
    )
    first = config.quant.phase_start(steps) if config.quant.enabled else steps
    named = {
        0: "first",
        min(max(optimizer.warmup_steps - 1, 0), steps - 1): "end of the warm-up",
        steps // 2: "middle",
        steps - 1: "last",
    } | ({first: "quantisation begins"} if first < steps else {})
    shown = [_line(config, objective, step, first, name) for step, name in sorted(named.items())]
    last = _rate(config, steps - 1, first)
    text = f"{steps} steps: a rate of {_rate(config, 0, first):.3g} at the first, {last:.3g} at the last"
    if optimizer.warmup_steps >= first > 0:
        return warned(
            f"{text}; the warm-up of {optimizer.warmup_steps} steps ends after the {first} steps that it is for",
            "lower optimizer.warmup_steps: the rate never falls, or its peak is never reached",
            *shown,
        )
    if any(weight == 0 for weight in objective.weights(steps - 1).values()):
        return warned(f"{text}; a term ends with the weight 0", "see the lines below", *shown)
    if ramp >= steps and any(name.startswith("early_tool") for name in objective.final_weights):
        return warned(
            f"{text}; the early-tool weights grow over {ramp} steps and never reach what is configured",
            "lower kd.early_tool_warmup_steps (optimizer.warmup_steps if it is null)",
            *shown,
        )
    if _rate(config, max(steps - 2, 0), first) == 0:
        return warned(
            f"{text}; the last steps have the rate 0",
            "raise optimizer.min_lr_fraction, or schedule_steps",
            *shown,
        )
    return passed(text, *shown)


def _rate(config: Config, step: int, first: int) -> float:
    if step >= first:
        return learning_rate_under_qat(step, first, config.train.num_steps, config.quant)
    return learning_rate(step, config.schedule_steps, config.optimizer)


def _line(config: Config, objective: Objective, step: int, first: int, name: str) -> str:
    weights = objective.weights(step)
    quant = config.quant
    if step >= first and quant.self_weight:
        weights = objective.with_self_teaching(quant.self_weight, quant.task_factor).weights(step)
    listed = ", ".join(f"{term} {weight:.3g}" for term, weight in weights.items())
    return f"step {step + 1} ({name}): rate {_rate(config, step, first):.3g}; {listed}"


def rate_can_change_codes(student: nn.Module, student_note: str, config: Config) -> Finding:
    """AdamW moves a weight by about the rate a step. How many codes could become others in the whole phase?"""
    quant, steps = config.quant, config.train.num_steps
    if not quant.enabled:
        return skipped("quant.enabled is false")
    first = quant.phase_start(steps)
    try:
        found = code_reach(student, quant, first, steps)
    except (ConfigError, QATError) as error:
        return skipped(f"the student cannot be quantised so: {error}")
    of = "" if not student_note else f" of the stand-in ({student_note})"
    text = (
        f"{steps - first} steps under quantisation move a weight by {found.distance:.2g} at most: {found.share:.1%} of "
        f"the codes{of} could change ({found.looked:,} looked at)"
    )
    if found.share >= FEW_CODES:
        return passed(text)
    return warned(
        text,
        f"raise quant.learning_rate ({quant.peak:g}), or give quantisation more steps (quant.start_fraction "
        f"{quant.start_fraction:g}): as it is, it could as well be left out",
    )


CHECKS = (
    Check(
        name="learning.gradient_reaches_the_weights",
        proves="Every weight that is to be trained gets a gradient, and nothing else is frozen.",
        look=gradient_reaches_the_weights,
    ),
    Check(
        name="learning.one_batch_overfits",
        proves="The student can learn: the loss on one batch halves within 40 steps.",
        look=one_batch_overfits,
        slow=True,
    ),
    Check(
        name="learning.rate_changes_weights",
        proves="A step at the config's own learning rate changes weights, and is not lost in rounding.",
        look=rate_changes_weights,
    ),
    Check(
        name="learning.accumulation_adds_up",
        proves="Several rows at once and one by one give the same loss and gradient.",
        look=accumulation_adds_up,
        slow=True,
    ),
    Check(
        name="learning.schedule",
        proves="Learning rate and weights of the losses are those that you mean, at the steps where they turn.",
        look=schedule,
    ),
    Check(
        name="learning.rate_can_change_codes",
        proves="The rate under quantisation is large enough to change codes at all.",
        look=rate_can_change_codes,
    ),
)
