"""The small run: each way in which it can go wrong is seen, and nothing else is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from preflight_objects import clean, find, look
from preflight_slow import slow_failures, steps

from kdfast.errors import DataError
from kdfast.recipes.preflight.checks_run import CHECKS
from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.made.objects import Objects

NAMES = [check.name for check in CHECKS]


def changed(run, kind, **values):
    """The run with other values in all lines of a kind."""
    return replace(run, lines=[line | values if line["kind"] == kind else line for line in run.lines])


def without(run, name):
    return replace(
        run, lines=[{key: value for key, value in line.items() if key != name} for line in run.lines]
    )


def diverged(run):
    return replace(
        run, result=replace(run.result, exit_code=3), output="step 1\ntraining diverged: the loss\n\n"
    )


def short(run):
    return replace(run, result=replace(run.result, step=3))


def a_nan(run):
    return changed(run, "train", not_finite=["kl"])


def a_nan_as_number(run):
    return changed(run, "validation", kl=math.nan)


def a_lost_step(run):
    return replace(run, lines=[line for line in run.lines if (line["kind"], line["step"]) != ("train", 3)])


def rising(run):
    """Each step's loss is twice the one before."""
    return replace(
        run, lines=[line | {"loss": 2.0 ** line["step"]} if "loss" in line else line for line in run.lines]
    )


FAULTS = [
    ("run.ends_well", diverged, "exit code 3"),
    ("run.ends_well", short, "made 3 of {last} steps"),
    ("run.ends_well", a_nan, "step 1: kl of the line 'train' is not finite"),
    ("run.ends_well", a_nan_as_number, "kl of the line 'validation' is not finite"),
    ("run.ends_well", a_lost_step, "{short} of {last} steps are in the metrics"),
    ("run.loss_falls", rising, "the loss rises"),
    ("run.terms_are_logged", lambda run: without(run, "early_tool_ce"), "early_tool_ce has positions"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_good_run_passes(name):
    assert look(name, clean()).status == "pass"


@pytest.mark.parametrize(("name", "fault", "text"), FAULTS, ids=lambda one: getattr(one, "__name__", None))
def test_a_bad_run_is_seen_by_its_check_alone(name, fault, text):
    objects = clean().replaced(run=fault(clean().get("run")))
    found = look(name, objects)
    assert found.status == "fail"
    assert text.format(**steps(), short=steps()["last"] - 1) in found.text
    assert found.remedy
    assert slow_failures(objects, "run") == [name]


def test_the_last_lines_of_a_run_that_failed_are_shown():
    found = look("run.ends_well", clean().replaced(run=diverged(clean().get("run"))))
    assert found.shown == ("step 1", "training diverged: the loss")


def with_losses(loss, *, kinds=("train", "validation")):
    """The run with losses that a function gives for each step, and only these kinds of lines with a loss."""
    run = clean().get("run")
    lines = [
        line | {"loss": loss(line["step"])} if "loss" in line else line
        for line in run.lines
        if "loss" not in line or line["kind"] in kinds
    ]
    return replace(run, lines=lines)


def test_a_held_out_loss_that_stays_is_warned_of():
    found = look("run.loss_falls", clean().replaced(run=with_losses(lambda step: 1.0)))
    assert found.status == "warn"
    assert "the loss does not fall: held-out loss 1 -> 1" in found.text


@pytest.mark.parametrize(
    ("growth", "status", "text"),
    [
        (0.9, "pass", "training loss 0.9 -> "),
        (1.0, "warn", "the loss does not fall: training loss 1 -> 1 "),
        (3.0, "fail", "the loss rises: training loss 3 -> "),
    ],
)
def test_without_held_out_losses_those_of_the_steps_are_judged(growth, status, text):
    run = with_losses(lambda step: growth**step, kinds=("train",))
    found = look("run.loss_falls", clean().replaced(run=run))
    assert found.status == status
    assert found.text.startswith(text)
    assert "0 held-out losses are there" in found.text


def test_a_run_that_is_under_quantisation_from_its_start_is_judged_by_all_steps():
    run = with_losses(lambda step: 100.0 - step)
    config = replace(run.project.config, quant=replace(run.project.config.quant, start_fraction=0.0))
    run = replace(run, project=replace(run.project, config=config))
    found = look("run.loss_falls", clean().replaced(run=run))
    assert found.status == "pass"
    assert found.text == "held-out loss 100 -> {end} in {last} steps".format(
        end=100 - steps()["last"], **steps()
    )


def test_without_two_losses_nothing_is_said():
    run = clean().get("run")
    kept = [line for line in run.lines if line["kind"] not in ("train", "validation")]
    assert look("run.loss_falls", clean().replaced(run=replace(run, lines=kept))).status == "skip"


def test_a_run_that_cannot_be_made_is_the_fault_of_the_first_check_alone():
    def broken(number):
        raise DataError("line 3 is no record; mend it")

    objects = Objects({"run": broken, "small": lambda number: None}, {"number": 1})
    found = look_once(find("run.ends_well"), objects)[0]
    assert (found.status, found.text, found.remedy) == ("fail", "line 3 is no record", "mend it")
    assert look_once(find("run.loss_falls"), objects)[0].status == "skip"


def test_a_validation_without_a_loss_warns():
    """As where ground truths are held out, and only teachers' answers are learned."""
    run = clean().get("run")
    lines = [
        {key: value for key, value in line.items() if (line["kind"], key) != ("validation", "loss")}
        for line in run.lines
    ]
    found = look("run.held_out_loss_is_measured", clean().replaced(run=replace(run, lines=lines)))
    assert (found.status, "validations have no loss" in found.text) == ("warn", True)


def test_no_validation_at_all_fails():
    run = clean().get("run")
    lines = [line for line in run.lines if line["kind"] != "validation"]
    assert (
        look("run.held_out_loss_is_measured", clean().replaced(run=replace(run, lines=lines))).status
        == "fail"
    )
