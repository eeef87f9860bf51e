"""What checks of the run, of learning and of the losses say where there is little to go by."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from preflight_objects import clean, look

from kdfast.batch import SOURCES
from kdfast.config import KDConfig
from kdfast.data import collate_kd_batch
from kdfast.recipes.preflight.checks_run import loss_falls
from kdfast.recipes.preflight.facts import SmallProject, SmallRun
from kdfast.recipes.preflight.looking.cheap_rows import affordable
from kdfast.recipes.preflight.made.objects import Objects


def run_with(objects: Objects, **losses: list[float]) -> Any:
    """A run whose lines have these losses, without quantisation."""
    config = objects.get("config")
    steps = len(losses["train"])
    config = replace(
        config, train=replace(config.train, num_steps=steps), quant=replace(config.quant, enabled=False)
    )
    project = SmallProject(folder=objects.get("work"), config=config, stand_in="", teacher_is_made_up=False)
    lines = [
        {"kind": kind, "step": step, "loss": loss}
        for kind, values in losses.items()
        for step, loss in enumerate(values, 1)
    ]
    result: Any = None  # what the check does not look at
    return SmallRun(project=project, result=result, seen=(), lines=lines, output="")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "validation", "status"),
    [
        ([4.0, 3.0, 2.0], [], "pass"),
        ([4.0, 3.0, 2.0], [4.0], "pass"),
        ([4.0, 3.0, 4.0], [4.0], "warn"),
        ([4.0, 4.0, 4.1], [], "warn"),
        ([4.0, 6.0, 7.9], [], "warn"),
        ([4.0, 6.0, 8.1], [], "fail"),
    ],
)
def test_without_two_held_out_losses_a_training_loss_that_rises_is_no_pass(
    train: list[float], validation: list[float], status: str
) -> None:
    found = loss_falls(run_with(clean(), train=train, validation=validation))
    assert found.status == status, found.text
    assert f"; {len(validation)} held-out losses are there, and two could be compared" in found.text
    assert ("data.validation" in found.remedy) == (status == "warn")


@pytest.mark.parametrize(
    ("lengths", "vocab", "least", "rows"),
    [
        ([5, 5, 5, 5, 5, 5], 100_000, 1, 4),
        ([5, 5, 10, 40], 100_000, 1, 3),
        ([20, 20, 30], 100_000, 1, 1),
        ([20, 20, 30], 100_000, 2, 2),
        ([60, 60, 60], 100_000, 2, 1),
    ],
)
def test_as_many_rows_as_are_short_enough(lengths: list[int], vocab: int, least: int, rows: int) -> None:
    widths = torch.arange(max(lengths) + 1)[None] <= torch.tensor(lengths)[:, None]  # [B,T]
    labels = torch.where(widths, 1, -100)
    labels[:, 0] = -100
    batch = {"labels": labels, "attention_mask": widths.long(), "input_ids": widths.long()}
    batch["response_mask"] = (labels != -100).long()
    assert len(affordable(batch, vocab, least)["labels"]) == rows


@pytest.mark.slow
def test_rows_with_few_labels_are_added_up() -> None:
    found = look("learning.accumulation_adds_up", clean())
    assert (found.status, found.text.startswith("4 rows at once and one by one")) == ("pass", True), (
        found.text
    )


@pytest.mark.slow
def test_weights_of_two_types_are_the_fault_of_another_check() -> None:
    student = copy.deepcopy(clean().get("student"))
    student.model.layers[1].to(torch.bfloat16)
    config = clean().get("config")
    made = clean().replaced(
        student=student, config=replace(config, arch=replace(config.arch, init="a/model"))
    )
    there = {name: clean().get(name) for name in ("batches", "student_note")}
    found = look("losses.loaded_student_beats_guessing", made.replaced(**there, student=student))
    assert (found.status, "not fp32: see model.weights_are_fp32" in found.text) == ("skip", True), found.text


def test_rows_on_which_no_term_acts_are_left_out_of_the_lesson():
    """Ground truths come first in a batch, and only the teacher's answers are learned."""
    objective = clean().get("objective")
    off = {
        name: 0.0
        for name in KDConfig().names()
        if name.endswith("_weight") and name not in ("name_weight", "args_weight")
    }
    off |= {name: None for name in off if name.endswith("_final_weight")}
    kd = replace(objective.settings.kd, **{**off, "ce_teacher_weight": 1.0})
    alone = replace(objective, settings=replace(objective.settings, kd=kd))
    rows = clean().get("sample_rows")
    sources = [int(rows.store.row(int(row))["source"]) for row in rows.rows]
    truths = [index for index, source in enumerate(sources) if source == SOURCES["truth"]]
    answers = [index for index, source in enumerate(sources) if source == SOURCES["teacher"]]
    batch = collate_kd_batch(rows.__getitems__([*truths[:4], answers[0]]))
    objects = clean().replaced(objective=alone, batches=[batch])
    assert look("learning.gradient_reaches_the_weights", objects).status == "pass"
    assert look("learning.rate_changes_weights", objects).status == "pass"
