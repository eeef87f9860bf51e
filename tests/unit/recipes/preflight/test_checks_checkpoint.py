"""Checkpoints, the resume and the student: what is damaged or skipped is seen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from preflight_objects import clean, look
from preflight_slow import copied_run, slow_failures, steps
from safetensors.torch import load_file, save_file

from kdfast.recipes.preflight.checks_checkpoint import CHECKS
from kdfast.runs.folder import RunFolder

NAMES = [check.name for check in CHECKS]
WHOLE, ROWS, WEIGHTS, LOADS, TEMPLATE = NAMES


def files(run):
    return RunFolder(run.project.config.io.run_dir)


@pytest.mark.parametrize("name", NAMES)
def test_the_clean_run_passes(name):
    assert look(name, clean()).status == "pass"


def no_checkpoint(run):
    files(run).checkpoints.rename(files(run).path / "away")
    return {"run": run}


def older_checkpoints_only(run):
    files(run).checkpoint(steps()["last"]).rename(files(run).path / "away")
    return {"run": run}


def a_cut_checkpoint(run):
    weights = files(run).checkpoint(steps()["last"]) / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    return {"run": run}


def _with_lines(change):
    resumed = clean().get("resumed")
    lines = [change(dict(line)) if line["kind"] == "train" else line for line in resumed.lines]
    return {"resumed": replace(resumed, lines=[line for line in lines if line is not None])}


def skipped_rows(_run):
    """In the second half each step reads what the step after it should."""
    start = steps()["start"]
    whole = {line["step"]: line for line in clean().get("run").lines if line["kind"] == "train"}
    later = {step: whole.get(step + 1, whole[start]) for step in whole}
    return _with_lines(
        lambda line: line if line["step"] <= start else later[line["step"]] | {"step": line["step"]}
    )


def other_shapes(_run):
    return _with_lines(lambda line: line | {"shape": 64.0} if line["step"] == steps()["last"] else line)


def other_losses(_run):
    return _with_lines(
        lambda line: line | {"loss": line["loss"] * 1.001} if line["step"] == steps()["last"] else line
    )


def a_missing_step(_run):
    return _with_lines(lambda line: None if line["step"] == steps()["last"] else line)


def a_step_twice(_run):
    resumed = clean().get("resumed")
    return {"resumed": replace(resumed, lines=[*resumed.lines, resumed.lines[-1] | {"kind": "train"}])}


def _student_tensors(run):
    return run.result.student / "model.safetensors"


def other_weights(run):
    resumed = run
    tensors = load_file(_student_tensors(resumed))
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1e-3
    save_file(tensors, _student_tensors(resumed), metadata={"format": "pt"})
    return {"resumed": replace(clean().get("resumed"), result=resumed.result)}


def a_nan_weight(run):
    tensors = load_file(_student_tensors(run))
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, _student_tensors(run), metadata={"format": "pt"})
    return {"resumed": replace(clean().get("resumed"), result=run.result)}


def unreadable_config(run):
    (run.result.student / "config.json").write_text("{", encoding="utf-8")
    return {"run": run}


def config_of_another_model(run):
    file = run.result.student / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"rms_norm_eps": 0.5}), encoding="utf-8")
    return {"run": run}


def another_template(run):
    (run.result.student / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    return {"run": run}


def no_template(run):
    (run.result.student / "chat_template.jinja").unlink()
    return {"run": run}


FAULTS = [
    (WHOLE, no_checkpoint, "no checkpoint of the last step {last}: there is none"),
    (WHOLE, older_checkpoints_only, "the newest is of step {start}"),
    (WHOLE, a_cut_checkpoint, "the checkpoint is damaged (optimizer.safetensors)"),
    (ROWS, skipped_rows, "data is skipped or read twice"),
    (ROWS, other_shapes, "step {last} reads"),
    (ROWS, other_losses, "the loss of step {last}"),
    (ROWS, a_missing_step, "steps [{last}] in one run only"),
    (ROWS, a_step_twice, "1 step(s) twice"),
    (WEIGHTS, other_weights, "model.norm.weight differs by up to 0.001"),
    (WEIGHTS, a_nan_weight, "model.norm.weight differs by up to nan"),
    (LOADS, unreadable_config, "transformers would not read it again"),
    (LOADS, config_of_another_model, "off those of the saved weights"),
    (TEMPLATE, another_template, "is not the template that it was trained with"),
    (TEMPLATE, no_template, "the student has no chat_template.jinja"),
]


@pytest.mark.parametrize(("name", "fault", "text"), FAULTS, ids=[fault.__name__ for _, fault, _ in FAULTS])
def test_a_fault_is_seen_by_its_check_alone(tmp_path, name, fault, text):
    changed = {"run": clean().get("run"), "resumed": clean().get("resumed")} | fault(copied_run(tmp_path))
    objects = clean().replaced(**changed)
    found = look(name, objects)
    assert found.status == "fail"
    assert text.format(**steps()) in found.text
    assert found.remedy
    assert slow_failures(objects, "checkpoint", and_cheap=fault is skipped_rows) == [name]


def test_damaged_weights_are_seen(tmp_path):
    run = copied_run(tmp_path)
    _student_tensors(run).write_bytes(b"no tensors")
    objects = clean().replaced(run=run, resumed=clean().get("resumed"))
    assert look(LOADS, objects).status == "fail"
    assert "the student's weights are damaged" in look(WEIGHTS, objects).text


def test_a_run_without_a_student_fails_where_it_is_needed():
    run = clean().get("run")
    stopped = replace(run, result=replace(run.result, student=None))
    objects = clean().replaced(run=stopped, resumed=clean().get("resumed"))
    for name in (WEIGHTS, LOADS, TEMPLATE):
        found = look(name, objects)
        assert found.status == "fail"
        assert "left no student" in found.text
