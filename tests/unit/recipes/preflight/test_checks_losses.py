"""Each check of the losses passes on a clean project and with every term on, and catches its own faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import loss_batches
import pytest
import torch
from preflight_objects import assert_only_fails, clean, look
from tiny_models import tiny_llama
from torch import Tensor, nn

from kdfast.config import KDConfig
from kdfast.losses import LossSettings, PendingLoss
from kdfast.recipes.preflight import checks_losses
from kdfast.recipes.preflight.check import Finding
from kdfast.recipes.preflight.checks_losses import CHECKS
from kdfast.recipes.preflight.facts import SmallProject
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.train.objective import Objective

EVERYTHING: dict[str, Any] = {
    "sampled_kl_weight": 0.2,
    "length_weight": 0.05,
    "early_tool_ce_weight": 0.01,
    "early_tool_prior_weight": 0.07,
    "early_tool_preamble_weight": 0.05,
    "early_tool_negative_weight": 0.03,
}
LIVE: dict[str, Any] = EVERYTHING | {
    "prompt_kl_weight": 0.2,
    "hidden_state_weight": 0.5,
    "hidden_state_student_layers": (1, -1),
    "hidden_state_teacher_layers": (2, -1),
    "divergence": "skew_kl",
    "temperature": 2.0,
}


@dataclass(frozen=True)
class Bent(Objective):
    """An objective whose loss is bent by hand: `bend` sees the right one and the hidden states."""

    bend: Callable[[PendingLoss, Tensor], PendingLoss] = lambda loss, _: loss

    def loss(self, output: Any, *args: Any, **options: Any) -> PendingLoss:
        return self.bend(super().loss(output, *args, **options), output.hidden)


def bent(bend: Callable[[PendingLoss, Tensor], PendingLoss]) -> Objective:
    """The clean objective, bent."""
    right = clean().get("objective")
    return Bent(
        settings=right.settings,
        num_steps=right.num_steps,
        early_tool_warmup_steps=right.early_tool_warmup_steps,
        bend=bend,
    )


def student_with(change: Callable[[Any], None]) -> Callable[[], nn.Module]:
    """The clean learner, changed each time it is built."""
    build = clean().get("learner")

    def learner() -> nn.Module:
        student: nn.Module = build()
        with torch.no_grad():
            change(student)
        return student

    return learner


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_clean_project_passes(check: Any) -> None:
    found = look(check.name, clean())
    assert found.status == "pass", found
    assert found.text == found.text.strip(".")


def test_terms_without_a_row_are_named_and_not_passed() -> None:
    for name in ("gradient_is_where_it_acts", "values_agree_with_float64"):
        assert (
            "no row of the sample for early_tool_prior, early_tool_preamble"
            in look(f"losses.{name}", clean()).text
        )
    shown = look("losses.terms_are_finite", clean()).shown
    assert "early_tool_preamble: weight 0.001, no row of the sample has what it acts on" in shown


def batch(rows: int = 6) -> dict[str, Tensor]:
    """Every kind of row, and padding."""
    some = loss_batches.batch(rows)
    length = some["response_start"] + some["response_length"]
    columns = torch.arange(some["labels"].shape[1])
    ids = torch.randint(0, 23, some["labels"].shape, generator=torch.Generator().manual_seed(0))
    return some | {"attention_mask": (columns < length[:, None]).long(), "input_ids": ids}


def llama(seed: int, width: int = 32) -> Any:
    return tiny_llama(
        seed=seed, layers=2, vocab_size=23, hidden_size=width, eos_token_id=22, initializer_range=0.1
    )


def objective(live: bool, **kd: Any) -> Objective:
    settings = LossSettings(
        kd=KDConfig(**kd),
        eos_ids=(loss_batches.EOS,),
        opening_ids=loss_batches.OPEN,
        prefix_tokens=4,
        live_teacher=live,
    )
    return Objective(settings=settings, num_steps=5)


@pytest.mark.parametrize("aggregate", ["ema", "row"])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "name", ["terms_are_finite", "gradient_is_where_it_acts", "values_agree_with_float64"]
)
def test_every_term_is_looked_at_and_agrees(name: str, live: bool, aggregate: str) -> None:
    given = objective(live, **(LIVE if live else EVERYTHING), length_aggregate=aggregate)
    teacher = llama(1, 48) if live else None
    found: Finding = getattr(checks_losses, name)(lambda: llama(0), given, [batch()], teacher)
    assert found.status == "pass", found
    for term in given.final_weights:
        assert term in found.text
    assert "no row" not in found.text


def _scaled(loss: PendingLoss, hidden: Tensor) -> PendingLoss:
    return replace(loss, total=loss.total * 1.01)


def _misreported(loss: PendingLoss, hidden: Tensor) -> PendingLoss:
    terms = {name: replace(term, total=term.total * 1.01) for name, term in loss.terms.items()}
    return replace(loss, terms=terms)


def _detached(loss: PendingLoss, hidden: Tensor) -> PendingLoss:
    return loss.detached()


def _leaking(loss: PendingLoss, hidden: Tensor) -> PendingLoss:
    """The right value, but every position is pulled."""
    return replace(loss, total=loss.total + 1e-4 * (hidden - hidden.detach()).sum())


def _half_blind(loss: PendingLoss, hidden: Tensor) -> PendingLoss:
    """The right value, but only every second position is pulled."""
    if not loss.total.requires_grad:
        return loss
    (pull,) = torch.autograd.grad(loss.total, hidden, retain_graph=True)
    pull = pull.index_fill(1, torch.arange(0, pull.shape[1], 2), 0.0)
    return replace(loss, total=loss.total.detach() + ((hidden - hidden.detach()) * pull).sum())


def _nan(student: Any) -> None:
    student.model.norm.weight[0] = math.nan


def _loud(student: Any) -> None:
    student.lm_head.weight.mul_(100)


Fault = tuple[str, Callable[[], Objects], str]
FAULTS: dict[str, Fault] = {
    "a term of the wrong size": (
        "values_agree_with_float64",
        lambda: clean().replaced(objective=bent(_scaled)),
        "kl is",
    ),
    "a term that is logged wrong": (
        "values_agree_with_float64",
        lambda: clean().replaced(objective=bent(_misreported)),
        "the reference",
    ),
    "a loss without gradient": (
        "gradient_is_where_it_acts",
        lambda: clean().replaced(objective=bent(_detached)),
        "kl is on no graph",
    ),
    "a gradient in the prompt": (
        "gradient_is_where_it_acts",
        lambda: clean().replaced(objective=bent(_leaking)),
        "positions where it must not act",
    ),
    "positions without a gradient": (
        "gradient_is_where_it_acts",
        lambda: clean().replaced(objective=bent(_half_blind)),
        "kl has a gradient at 15 of its 30",
    ),
    "hidden states with NaN": (
        "terms_are_finite",
        lambda: clean().replaced(learner=student_with(_nan)),
        "not finite",
    ),
    "weights that are far too large": (
        "first_cross_entropy",
        lambda: clean().replaced(learner=student_with(_loud)),
        "guessing among 503 ids has 6.22",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_caught_by_its_check_alone(fault: Fault) -> None:
    name, make, text = fault
    found = assert_only_fails(f"losses.{name}", make())
    assert text in found.text
    assert found.remedy


def test_a_student_that_is_worse_than_guessing_has_another_model_s_tokenizer() -> None:
    student = clean().get("learner")()
    with torch.no_grad():
        _loud(student)
    found = look("losses.loaded_student_beats_guessing", clean().replaced(student=student))
    assert found.status == "fail"
    assert "does data.tokenizer belong to arch.init" in found.remedy


def test_a_cut_student_that_is_worse_than_guessing_is_a_warning() -> None:
    config, student = clean().get("config"), clean().get("learner")()
    with torch.no_grad():
        _loud(student)
    cut = replace(config, arch=replace(config.arch, layers=1))
    some = clean().get("batches")
    found = checks_losses.loaded_student_beats_guessing(student, "", some, cut)
    assert (found.status, "arch.layers" in found.remedy) == ("warn", True)


def test_a_stand_in_says_nothing_of_the_student_s_weights() -> None:
    given = clean().replaced(student_note="2 layers for 30")
    found = look("losses.loaded_student_beats_guessing", given)
    assert (found.status, "2 layers for 30" in found.text) == ("skip", True)


@pytest.mark.parametrize(("factor", "status"), [(1.0, "pass"), (30.0, "fail"), (0.0, "pass")])
def test_random_weights_must_start_near_guessing(factor: float, status: str) -> None:
    small: SmallProject = replace(clean().get("small"), stand_in="2 layers, random")
    learner = student_with(lambda student: student.lm_head.weight.mul_(factor))
    found = look("losses.first_cross_entropy", clean().replaced(small=small, learner=learner))
    assert found.status == status


def test_ids_that_the_student_lacks_are_skipped_here() -> None:
    batches = clean().get("batches")
    strange = [one | {"input_ids": one["input_ids"] + 5000} for one in batches]
    for check in CHECKS:
        found = look(check.name, clean().replaced(batches=strange))
        assert (found.status, "the student has 503 ids" in found.text) == ("skip", True), check.name


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_no_batch_is_nothing_to_look_at(check: Any) -> None:
    assert look(check.name, clean().replaced(batches=[])).status == "skip"
