"""Training under quantisation: what is wrong with it is seen before it matters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from preflight_objects import assert_only_fails, clean, look
from preflight_slow import slow_failures, steps
from torch import nn

from kdfast.errors import DivergedError
from kdfast.qat import FakeQuantLinear
from kdfast.recipes.preflight.checks_qat import CHECKS
from kdfast.recipes.preflight.made.makers import MAKERS
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.preflight.made.small_run import DISTURBED_STEPS, run_disturbed

NAMES = [check.name for check in CHECKS]


def linears(model):
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def hooked(hook):
    """A maker of students whose linear layers pass their outputs through a hook."""
    fresh = clean().get("learner")

    def learner():
        model = fresh()
        for layer in linears(model):
            layer.register_forward_hook(hook)
        return model

    return learner


def rounding_kills_the_gradient(layer, _inputs, output):
    return output.detach() if isinstance(layer, FakeQuantLinear) else output


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, values):
        return values.clone()

    @staticmethod
    def backward(_ctx, gradient):
        return gradient / 2


def rounding_halves_the_gradient(layer, _inputs, output):
    return _Halved.apply(output) if isinstance(layer, FakeQuantLinear) else output


def hides_what_is_not_finite(_layer, _inputs, output):
    return torch.nan_to_num(output)


@pytest.mark.parametrize("name", NAMES)
def test_the_clean_project_passes(name):
    assert look(name, clean()).status == "pass"


@pytest.mark.parametrize("name", NAMES)
def test_without_quantisation_there_is_nothing_to_look_at(name):
    config = clean().get("config")
    off = replace(config, quant=replace(config.quant, enabled=False))
    made = {one: clean().get(one) for one in ("learner", "run", "disturbed")}
    objects = clean().replaced(config=off, **made)
    assert look(name, objects).text == "quant.enabled is false"


@pytest.mark.parametrize(
    ("hook", "text"),
    [
        (rounding_kills_the_gradient, "no gradient reaches"),
        (rounding_halves_the_gradient, "of its size off that of its rounded weights"),
    ],
)
def test_rounding_that_changes_the_gradient_is_seen(hook, text):
    found = assert_only_fails("qat.gradient_passes_straight_through", clean().replaced(learner=hooked(hook)))
    assert text in found.text


def test_a_student_that_hides_a_nan_is_seen():
    found = assert_only_fails(
        "qat.nan_is_noticed", clean().replaced(learner=hooked(hides_what_is_not_finite))
    )
    assert "is not noticed by the stability check" in found.text


def test_the_run_goes_back_or_stops():
    text = look("qat.nan_is_noticed", clean()).text
    assert "a weight too large to round" in text
    assert "roll_back" in text
    assert "stop" in text


def test_a_student_that_is_broken_anyhow_is_left_to_other_checks():
    model = clean().get("learner")()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    objects = clean().replaced(learner=lambda: model)
    for name in ("qat.nan_is_noticed", "qat.gradient_passes_straight_through"):
        found = look(name, objects)
        assert found.status == "skip"
        assert "up_proj" in found.text


def with_lines(change, name="run"):
    """The clean objects; a function changes or drops the lines of one of the runs."""
    run = clean().get(name)
    clean().get("disturbed")  # made once, so that it is kept
    lines = [changed for line in run.lines if (changed := change(dict(line))) is not None]
    return clean().replaced(**{name: replace(run, lines=lines)})


def is_event(line, *names):
    return line["kind"] == "qat" and line.get("event") in names


def never_begun(line):
    return None if is_event(line, "start") else line


def begun_late(line):
    return line | {"step": steps()["late"]} if is_event(line, "start") else line


def early_line(line):
    return line | {"step": 2} if is_event(line, "check") else line


def without_cosine(line):
    return {key: value for key, value in line.items() if key != "cosine" or line["kind"] != "qat"}


def never_checked(line):
    return None if is_event(line, "check") else line


def given_up(line):
    return line | {"event": "gave_up", "reason": "KL grew"} if is_event(line, "check") else line


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("qat.begins_at_its_step", begun_late, "began after step {late}, it was due after step {start}"),
        ("qat.begins_at_its_step", early_line, "a line of quantisation is of step 2"),
        ("qat.stability_is_measured", without_cosine, "has no cosine"),
        ("qat.stability_is_measured", never_checked, "was checked 1 times"),
        ("qat.stability_is_measured", given_up, "quantisation was given up: KL grew"),
    ],
)
def test_a_bad_phase_is_seen_by_its_check_alone(name, change, text):
    objects = with_lines(change)
    found = look(name, objects)
    assert found.status == "fail"
    assert text.format(**steps()) in found.text
    assert found.remedy
    assert slow_failures(objects, "qat", and_cheap=change is begun_late) == [name]


def test_a_phase_that_never_begins_is_seen():
    found = look("qat.begins_at_its_step", with_lines(never_begun))
    text = "quantisation never began, it was due after step {start} of {last}"
    assert (found.status, found.text) == ("fail", text.format(**steps()))


def test_going_back_is_warned_of():
    run = clean().get("run")
    back = {"kind": "qat", "step": 6, "event": "rolled_back", "reason": "KL grew"}
    found = look("qat.stability_is_measured", clean().replaced(run=replace(run, lines=[*run.lines, back])))
    assert found.status == "warn"
    assert "went back 1 time(s): KL grew" in found.text


# A weight that breaks while the run goes on


RECOVERS = "qat.recovers_from_a_broken_weight"


def never_back(line):
    return None if is_event(line, "rolled_back") else line


def given_up_at_last(line):
    return line | {"event": "gave_up", "reason": "it broke again"} if is_event(line, "rolled_back") else line


def a_nan_at_the_end(line):
    return line | {"loss": math.nan} if (line["kind"], line["step"]) == ("train", DISTURBED_STEPS) else line


def no_loss_at_the_end(line):
    """As the metrics have it where the loss is not finite."""
    is_last = (line["kind"], line["step"]) == ("train", DISTURBED_STEPS)
    return {key: value for key, value in line.items() if key != "loss" or not is_last}


def a_lost_step(line):
    return None if (line["kind"], line["step"]) == ("train", 1) else line


def test_a_broken_weight_sends_the_run_back():
    run, found = clean().get("disturbed"), look(RECOVERS, clean())
    start = run.project.config.quant.phase_start(DISTURBED_STEPS)
    assert (
        f"the run went back to step {start} (the loss or its gradient at step {start + 2} is not"
        in found.text
    )
    steps = [one.step for one in run.of("step")]
    assert steps == [*range(1, start + 2), *range(start + 1, DISTURBED_STEPS + 1)]  # some are made again


def test_without_quantisation_no_weight_is_broken(tmp_path):
    small = clean().get("small")
    config = replace(
        small.config,
        io=replace(small.config.io, run_dir=tmp_path / "run"),
        quant=replace(small.config.quant, enabled=False),
    )
    assert run_disturbed(replace(small, config=config)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (never_back, "the run did not go back"),
        (given_up_at_last, "quantisation was given up after a weight broke: it broke again"),
        (a_nan_at_the_end, "the loss of step {last} is not finite"),
        (no_loss_at_the_end, "the loss of step {last} is not finite"),
        (a_lost_step, "{short} of {last} steps are in the metrics"),
    ],
)
def test_a_run_that_does_not_recover_is_seen_by_its_check_alone(change, text):
    objects = with_lines(change, "disturbed")
    found = look(RECOVERS, objects)
    assert found.status == "fail"
    assert text.format(last=DISTURBED_STEPS, short=DISTURBED_STEPS - 1) in found.text
    assert found.remedy
    assert slow_failures(objects, "qat", and_cheap=change is never_back) == [RECOVERS]


@pytest.mark.parametrize("values", [{"exit_code": 3}, {"step": 3}, {"qat": "failed"}])
def test_a_run_that_recovers_and_ends_badly_is_seen(values):
    run = clean().get("disturbed")
    found = look(RECOVERS, clean().replaced(disturbed=replace(run, result=replace(run.result, **values))))
    assert (found.status, "the run ends badly" in found.text) == ("fail", True)


def test_a_run_that_cannot_be_made_fails_its_check_alone():
    def stops(small):
        raise DivergedError("training diverged: the loss at step 4 is not finite; lower the rate")

    objects = Objects({**MAKERS, "disturbed": stops}, {"config": clean().get("config"), "small": None})
    found = look(RECOVERS, objects)
    assert (found.status, found.text) == ("fail", "training diverged: the loss at step 4 is not finite")
