"""Each check of learning passes on a clean project, and catches its own faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from preflight_objects import assert_only_fails, clean, look
from torch import nn

from kdfast.config import Config
from kdfast.losses import BatchPlan, PendingLoss, StepWeights
from kdfast.recipes.preflight.checks_learning import CHECKS
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.train.objective import Objective


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_clean_project_passes(check: Any) -> None:
    found = look(check.name, clean())
    assert found.status == "pass", found
    assert found.text == found.text.strip(".")


@dataclass(frozen=True)
class AveragesParts(Objective):
    """Divides each micro-batch by its own count, as many trainers do, in place of the step's."""

    def loss(
        self, output: Any, plan: BatchPlan, step: StepWeights, *args: Any, **options: Any
    ) -> PendingLoss:
        return super().loss(
            output, plan, StepWeights(step.weights, plan.counts, step.states), *args, **options
        )


@dataclass(frozen=True)
class WrongWay(Objective):
    """The right value with the gradient turned round."""

    def loss(self, *args: Any, **options: Any) -> PendingLoss:
        found = super().loss(*args, **options)
        return replace(found, total=2 * found.total.detach() - found.total)


def objective(kind: type[Objective]) -> Objective:
    right = clean().get("objective")
    return kind(
        settings=right.settings,
        num_steps=right.num_steps,
        early_tool_warmup_steps=right.early_tool_warmup_steps,
    )


def student_with(change: Callable[[Any], None]) -> Callable[[], nn.Module]:
    build = clean().get("learner")

    def learner() -> nn.Module:
        student: nn.Module = build()
        change(student)
        return student

    return learner


def _frozen(student: Any) -> None:
    student.requires_grad_(False)


def _frozen_layer(student: Any) -> None:
    student.model.layers[0].mlp.requires_grad_(False)


def _cut_graph(student: Any) -> None:
    norm = student.model.layers[0].input_layernorm
    norm.register_forward_hook(lambda module, args, output: output.detach())


def config(section: str, **keys: Any) -> Config:
    given: Config = clean().get("config")
    return replace(given, **{section: replace(getattr(given, section), **keys)})


def with_config(section: str, **keys: Any) -> Objects:
    """The clean objects but for the user's config; what was made of it stays."""
    names = ("small", "sample_rows", "batches", "learner", "objective", "live_teacher", "student")
    kept = {name: clean().get(name) for name in (*names, "student_note", "figures", "machine")}
    return clean().replaced(config=config(section, **keys), **kept)


Fault = tuple[str, Callable[[], Objects], str]
FAULTS: dict[str, Fault] = {
    "a frozen student": (
        "gradient_reaches_the_weights",
        lambda: clean().replaced(learner=student_with(_frozen)),
        "20 tensors of the student are frozen",
    ),
    "a frozen layer": (
        "gradient_reaches_the_weights",
        lambda: clean().replaced(learner=student_with(_frozen_layer)),
        "3 tensors of the student are frozen: model.layers.0.mlp.gate_proj.weight",
    ),
    "a graph that is cut inside the student": (
        "gradient_reaches_the_weights",
        lambda: clean().replaced(learner=student_with(_cut_graph)),
        "1 of 20 trained tensors get no gradient: model.layers.0.input_layernorm.weight",
    ),
    "a loss that pulls the wrong way": (
        "one_batch_overfits",
        lambda: clean().replaced(objective=objective(WrongWay)),
        "after 40 steps",
    ),
    "a learning rate of almost 0": (
        "rate_changes_weights",
        lambda: with_config("optimizer", learning_rate=1e-14),
        "changes 0.0% of the",
    ),
    "a learning rate that is 0 in fp32": (
        "rate_changes_weights",
        lambda: with_config("optimizer", learning_rate=1e-50),
        "changes 0.0% of the",
    ),
    "micro-batches that are averaged": (
        "accumulation_adds_up",
        lambda: clean().replaced(objective=objective(AveragesParts)),
        "4 rows at once and one by one",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_caught_by_its_check_alone(fault: Fault) -> None:
    name, make, text = fault
    found = assert_only_fails(f"learning.{name}", make())
    assert text in found.text
    assert found.remedy


@pytest.mark.parametrize(
    ("section", "keys", "name", "text"),
    [
        (
            "quant",
            {"learning_rate": 1e-11},
            "rate_can_change_codes",
            "40 steps under quantisation move a weight by",
        ),
        ("optimizer", {"warmup_steps": 180}, "schedule", "ends after the 160 steps that it is for"),
        ("kd", {"early_tool_warmup_steps": 500}, "schedule", "never reach what is configured"),
        ("kd", {"kl_final_weight": 0.0}, "schedule", "a term ends with the weight 0"),
        ("optimizer", {"learning_rate": 3e-10}, "rate_changes_weights", "of the 34,688 weights"),
    ],
)
def test_what_may_be_meant_so_is_a_warning(section: str, keys: Any, name: str, text: str) -> None:
    found = look(f"learning.{name}", with_config(section, **keys))
    assert found.status == "warn", found
    assert text in found.text
    assert found.remedy


def test_a_rate_of_0_at_the_end_of_the_schedule_is_a_warning() -> None:
    given = with_config("optimizer", min_lr_fraction=0.0, schedule_steps=100)
    given = given.replaced(
        config=replace(given.get("config"), quant=replace(given.get("config").quant, enabled=False))
    )
    found = look("learning.schedule", given)
    assert (found.status, "the last steps have the rate 0" in found.text) == ("warn", True)


def test_the_schedule_shows_where_rate_and_weights_turn() -> None:
    shown = look("learning.schedule", with_config("kd", kl_final_weight=0.1)).shown
    assert [line.partition(":")[0] for line in shown] == [
        "step 1 (first)",
        "step 2 (end of the warm-up)",
        "step 101 (middle)",
        "step 161 (quantisation begins)",
        "step 200 (last)",
    ]
    assert "rate 0.001; kl 0.498" in shown[1]
    assert "kl 0.1," in shown[-1]


def test_without_quantisation_no_code_is_to_change() -> None:
    found = look("learning.rate_can_change_codes", with_config("quant", enabled=False))
    assert (found.status, found.text) == ("skip", "quant.enabled is false")


def test_codes_that_can_change_are_counted_by_their_distance_to_the_next_code() -> None:
    student = nn.Module()
    student.layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        # the scale is 1: distances to the next code are 0.5, 0.4, 0.1 and 0.01
        student.layer.weight.copy_(torch.tensor([[127.0, 3.1, 5.4, 7.49]]))
    given = with_config("quant", learning_rate=0.01, format="int8_channel", warmup_steps=0)
    found = look("learning.rate_can_change_codes", given.replaced(student=student))
    assert "move a weight by 0.2" in found.text
    assert "50.0% of the codes could change (4 looked at)" in found.text


def test_a_stand_in_s_codes_are_said_to_be_its_own() -> None:
    found = look("learning.rate_can_change_codes", clean().replaced(student_note="2 layers for 30"))
    assert "of the stand-in (2 layers for 30)" in found.text


def test_embeddings_that_are_kept_are_no_fault() -> None:
    given = clean()
    small = given.get("small")
    arch = replace(small.config.arch, freeze_embeddings=True)
    kept = replace(small, config=replace(small.config, arch=arch))
    learner = student_with(lambda student: student.model.embed_tokens.requires_grad_(False))
    made = {name: given.get(name) for name in ("sample_rows", "batches", "objective", "live_teacher")}
    found = look("learning.gradient_reaches_the_weights", given.replaced(small=kept, learner=learner, **made))
    assert found.status == "pass"
    assert "the embeddings are kept" in found.text
