"""Checks of the losses: finite, with a gradient where they act and nowhere else, and of the right value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdfast.batch import IGNORE_INDEX
from kdfast.config import Config
from kdfast.errors import DataError, DivergedError
from kdfast.losses import BatchPlan, StepWeights, Term
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import SmallProject
from kdfast.recipes.preflight.looking.loss_places import PLACES, Batch
from kdfast.recipes.preflight.looking.loss_trial import (
    Trial,
    Trials,
    labels_in,
    open_states,
    rows_of,
    runner_of,
    strange_ids,
)
from kdfast.recipes.train.live_teacher import FrozenTeacher
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.step import Runner
from kdfast.student import hidden_states

Learner = Callable[[], nn.Module]
_NEAR = 0.25
"""How far, as a share of it, the first cross-entropy of random weights may be from ln V."""
_WORSE = 1.0
"""How far that of loaded weights may be above ln V, in nats."""
_ENOUGH_LABELS = 64
_REACHED = 0.9
"""Least share of a term's positions that must have a gradient: one of them may underflow to 0."""
_RELATIVE, _EACH = 1e-4, 1e-5
"""How far a sum may be from the reference: a share of it, and a number a position."""
_REPORT = "do not train: the loss is not what docs/losses.md says; report it with this config"


def first_cross_entropy(
    learner: Learner, batches: Sequence[Batch], small: SmallProject, config: Config
) -> Finding:
    """Random weights know nothing: each token costs about ln V. Loaded ones must not be worse than that."""
    return _guessing(learner(), _few_labels(batches), config, scratch=_is_random(small))


def loaded_student_beats_guessing(
    student: nn.Module, student_note: str, batches: Sequence[Batch], config: Config
) -> Finding:
    """The student's own weights on one row: with another model's tokenizer they are worse than guessing."""
    if student_note:
        return skipped(f"the student is too large for this machine: {student_note}")
    if config.arch.from_scratch:
        return skipped("arch.init is scratch: the weights are random")
    one = min(
        (rows_of(batch, [row]) for batch in batches for row in range(len(batch["labels"]))),
        key=lambda row: (not _labels(row), row["input_ids"].shape[1]),
        default=None,
    )
    return _guessing(student, [] if one is None else [one], config, scratch=False)


def _is_random(small: SmallProject) -> bool:
    return bool(small.stand_in) or small.config.arch.from_scratch


def _few_labels(batches: Sequence[Batch]) -> list[Batch]:
    """The cheapest batches that together have enough labels for a mean."""
    found: list[Batch] = []
    for batch in sorted((one for one in batches if _labels(one)), key=_labels):
        found.append(batch)
        if sum(map(_labels, found)) >= _ENOUGH_LABELS:
            break
    return found


def _labels(batch: Batch) -> int:
    return int((batch["labels"] != IGNORE_INDEX).sum())


def _guessing(student: nn.Module, batches: Sequence[Batch], config: Config, *, scratch: bool) -> Finding:
    strange = strange_ids(student, batches) if batches else "the sample has no label"
    if not strange and any(weight.dtype != torch.float32 for weight in student.parameters()):
        strange = "the student's weights are not fp32: see model.weights_are_fp32"
    if strange:
        return skipped(strange)
    losses = torch.cat([_token_losses(student, rows_of(one, range(len(one["labels"])))) for one in batches])
    mean, vocab = float(losses.mean()), len(student.lm_head.weight)  # type: ignore[arg-type, union-attr]
    if not math.isfinite(mean):
        return skipped("the student's logits are not finite: see losses.terms_are_finite and model")
    guess = math.log(vocab)
    text = f"{mean:.2f} nats a token over {len(losses)} labels; guessing among {vocab:,} ids has {guess:.2f}"
    if mean <= guess + _WORSE if not scratch else abs(mean - guess) <= _NEAR * guess:
        return passed(text)
    if scratch:
        return failed(
            text, "random weights must start near ln V: look at the student's init and output layer"
        )
    if config.arch.layers is not None:
        return warned(text, "the layers that are left know nothing yet: keep more of them (arch.layers)")
    return failed(
        text, "the loaded weights are worse than guessing: does data.tokenizer belong to arch.init?"
    )


def _token_losses(student: nn.Module, batch: Batch) -> Tensor:
    """[n] the cross-entropy of each label."""
    labels = batch["labels"]
    mask = labels != IGNORE_INDEX
    with torch.no_grad():
        hidden, _ = hidden_states(student, batch["input_ids"])  # type: ignore[arg-type]
        logits = student.lm_head(hidden[mask])  # type: ignore[operator]
        return cross_entropy(logits, labels[mask], reduction="none")


def terms_are_finite(
    learner: Learner,
    objective: Objective,
    batches: Sequence[Batch],
    live_teacher: FrozenTeacher | nn.Module | None,
) -> Finding:
    """Every enabled term, on batches of all shapes; each batch of the sample is planned."""
    runner = runner_of(learner(), objective, live_teacher)
    strange = strange_ids(runner.bare.student, batches) if batches else "the sample gives no batch"
    if strange:
        return skipped(strange)
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    rows = 0
    try:
        plans = [runner.plan(batch) for batch in batches]
        for number in _one_of_each(plans, batches):
            rows += len(batches[number]["labels"])
            for name, term in _terms(runner, batches[number], plans[number]).items():
                sums[name] = sums.get(name, 0.0) + float(term.total)
                counts[name] = counts.get(name, 0.0) + term.count
    except (DataError, DivergedError) as error:
        said = str(error).partition("; ")[0]
        return failed(
            said, "look at the student's weights (model), and at these rows and their teacher's numbers"
        )
    except ValueError as error:
        return skipped(f"the losses refuse a batch: {error}")
    return _means(sums, counts, objective, rows)


def _one_of_each(plans: Sequence[BatchPlan], batches: Sequence[Batch]) -> list[int]:
    """The numbers of the cheapest batches that together have all shapes, and all terms that have rows."""
    chosen: set[int] = set()
    order = sorted(range(len(batches)), key=lambda number: labels_in(batches[number]))
    for name in plans[0].counts:
        chosen.update([number for number in order if plans[number].counts[name]][:1])
    widths = {batch["labels"].shape[1] for batch in batches}
    for width in widths - {batches[number]["labels"].shape[1] for number in chosen}:
        chosen.add(next(number for number in order if batches[number]["labels"].shape[1] == width))
    return sorted(chosen)


def _terms(runner: Runner, batch: Batch, plan: BatchPlan) -> Mapping[str, Term]:
    """The terms of a batch.

    Raises:
        DataError: the batch cannot be right.
        DivergedError: a term is not finite, also where the run would leave such rows out (kd.on_nan).
    """
    step = StepWeights(dict.fromkeys(plan.counts, 1.0), plan.counts, open_states(runner.objective))
    with torch.no_grad():
        terms = runner.read(runner.loss(runner.bare, batch, plan, step), batch).terms
    for name, term in terms.items():
        if term.skipped:
            raise DivergedError(f"{name} is not finite in {term.skipped} rows, which kd.on_nan leaves out")
    return terms


def _means(sums: dict[str, float], counts: dict[str, float], objective: Objective, rows: int) -> Finding:
    weights = objective.weights(objective.num_steps - 1)
    shown, negative = [], []
    for name, weight in weights.items():
        if not counts.get(name):
            shown.append(f"{name}: weight {weight:g}, no row of the sample has what it acts on")
            continue
        mean = sums[name] / counts[name]
        shown.append(f"{name}: {mean:.4f} a position, over {counts[name]:g}, weight {weight:g}")
        if not math.isfinite(mean) or (mean < -_EACH and not PLACES[name].signed):
            negative.append(f"{name} {mean:g}")
    if negative:
        return failed(f"a term is negative or not finite: {', '.join(negative)}", _REPORT, *shown)
    acting = [name for name in weights if counts.get(name)]
    if not acting:
        return skipped("no row of the sample has what an enabled term acts on")
    text = f"{len(acting)} of {len(weights)} terms act on {rows} rows, all are finite: " + ", ".join(
        f"{name} {sums[name] / counts[name]:.3g}" for name in acting
    )
    return passed(text, *shown)


def gradient_is_where_it_acts(
    learner: Learner,
    objective: Objective,
    batches: Sequence[Batch],
    live_teacher: FrozenTeacher | nn.Module | None,
) -> Finding:
    """The gradient of the hidden states, term by term, against the batch's own masks."""
    trials = Trials.of(learner, objective, batches, live_teacher)
    return _of_terms(trials, _gradient, "a gradient only where they act: ")


def _gradient(term: str, trial: Trial) -> tuple[bool, str]:
    """Whether a term pulls where it should, and in words where it does."""
    where, reached = trial.where, trial.gradient()
    if reached is None:
        return False, f"{term} is on no graph"
    strayed, hit = int((reached & ~where).sum()), int((reached & where).sum())
    everywhere = PLACES[term].everywhere
    flat = not everywhere and trial.expected() == 0
    if strayed:
        return False, f"{term} pulls at {strayed} positions where it must not act"
    if hit < (_REACHED * int(where.sum()) if everywhere else 1) and not flat:
        return False, f"{term} has a gradient at {hit} of its {int(where.sum())} positions"
    return True, f"{term} at {hit} positions of {where.numel()}"


def values_agree_with_float64(
    learner: Learner,
    objective: Objective,
    batches: Sequence[Batch],
    live_teacher: FrozenTeacher | nn.Module | None,
) -> Finding:
    """The value of each term on a few rows, against the obvious formula in float64."""
    trials = Trials.of(learner, objective, batches, live_teacher)
    return _of_terms(trials, _value, "as in float64: ")


def _value(term: str, trial: Trial) -> tuple[bool, str]:
    """Whether a term has the reference's value, and in words which."""
    with torch.no_grad():
        pending = trial.loss()
        found = pending.read()
    count = trial.plan.counts[term]
    wanted, places = trial.expected(), int(trial.where.sum())
    near = _RELATIVE * abs(wanted) + _EACH * places
    total, weighed = float(found.terms[term].total), float(found.total) * count
    if abs(total - wanted) > near or abs(weighed - wanted) > near:
        off = total if abs(total - wanted) > near else weighed
        return False, f"{term} is {off:.6g}, the reference {wanted:.6g} ({places} positions)"
    return True, f"{term} {wanted / count:.4f} ({places} positions)"


def _of_terms(trials: Trials, judge: Callable[[str, Trial], tuple[bool, str]], what: str) -> Finding:
    """One finding about all terms, each judged alone; a term without a row is named, not passed."""
    if trials.looked.trouble:
        return skipped(trials.looked.trouble)
    tried = {term: trials.trial(term) for term in trials.terms}
    judged = [judge(term, trial) for term, trial in tried.items() if trial is not None]
    absent = [term for term, trial in tried.items() if trial is None]
    seen = [said for good, said in judged if good]
    wrong = [said for good, said in judged if not good]
    note = f"; no row of the sample for {', '.join(absent)}" if absent else ""
    if wrong:
        return failed("; ".join(wrong), _REPORT, *seen)
    if not seen:
        return skipped(f"nothing to look at{note}")
    return passed(f"{what}{', '.join(seen)}{note}")


CHECKS = (
    Check(
        name="losses.first_cross_entropy",
        proves="A student with random weights starts at ln V, as one that knows nothing must.",
        look=first_cross_entropy,
    ),
    Check(
        name="losses.loaded_student_beats_guessing",
        proves="The weights that the student starts with belong to this tokenizer.",
        look=loaded_student_beats_guessing,
    ),
    Check(
        name="losses.terms_are_finite",
        proves="Every enabled loss term is a finite number on the sample.",
        look=terms_are_finite,
        owns=("objective", "live_teacher"),
    ),
    Check(
        name="losses.gradient_is_where_it_acts",
        proves="Every enabled loss term pulls at the positions that it is for, and at no other.",
        look=gradient_is_where_it_acts,
    ),
    Check(
        name="losses.values_agree_with_float64",
        proves="Every enabled loss term has the value that its formula gives, computed apart in float64.",
        look=values_agree_with_float64,
    ),
)
