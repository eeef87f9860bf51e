"""Training under quantisation in whole runs: it is applied, the loss falls through it, and it recovers from failures.

Faults enter where a user's would: a callback overwrites weights between two steps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from qat_runs import (
    Fault,
    checkpoints,
    config,
    lines,
    not_a_number,
    outliers,
    prepare,
    too_large_for_fp16,
    weights,
)
from safetensors.torch import load_file

import kdfast
from kdfast.errors import ConfigError, DivergedError
from kdfast.qat import is_qat_applied
from kdfast.quantized import check_saved, quantize
from kdfast.recipes.train.events import TrainEvent
from kdfast.runs.checkpoint import read_state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records and a tiny model; runs differ by overrides only."""
    return prepare(tmp_path_factory.mktemp("qat"))


@pytest.fixture(scope="module")
def whole(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = kdfast.train(config(prepared, run))
    assert (result.exit_code, result.qat, result.step) == (0, "done", 10)
    return run


def test_qat_is_applied_at_its_step_and_its_student_ships_with_its_table(whole: Path) -> None:
    events = lines(whole, "qat")
    assert [(one["step"], one["event"]) for one in events] == [
        (4, "start"), (6, "check"), (8, "check"), (10, "frozen"), (10, "check"),
    ]  # fmt: skip
    assert all({"cosine", "kl", "top1_fraction"} <= one.keys() for one in events if one["event"] != "frozen")
    assert events[-1]["changed_fraction"] > 0.01
    # the learning rate is the run's own before, and its own cosine from there on
    rates = [one["learning_rate"] for one in lines(whole, "train")]
    assert rates[4] == pytest.approx(1e-3)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    table = check_saved(whole / "student")
    assert {one.format for one in table.tensors.values()} == {"int8_channel"}
    saved = weights(whole)
    assert all(torch.equal(saved[name], one.dequantize()) for name, one in table.tensors.items())
    origin = json.loads((whole / "student" / "kdfast.json").read_text())
    assert (origin["qat"], origin["table"]) == ("done", table.fingerprint())
    # the float student at the phase's start is never pruned, though one checkpoint is kept
    assert checkpoints(whole) >= {"step_4", "step_10"}
    assert "step_6" not in checkpoints(whole)


def test_the_loss_falls_through_it_and_the_best_is_counted_anew(whole: Path) -> None:
    losses = {one["step"]: one["loss"] for one in lines(whole, "validation")}
    assert losses[10] < losses[6] < losses[2]
    state = read_state(whole / "checkpoints" / "step_10")
    assert state["best_step"] in (6, 8, 10)


def test_the_report_compares_it_with_quantising_after_training(whole: Path) -> None:
    document = json.loads((whole / "quantization.json").read_text())
    arms = {arm["name"]: arm for arm in document["arms"]}
    assert list(arms) == ["float", "start, post-training", "qat"]
    assert arms["qat"]["bytes"] < arms["float"]["bytes"] / 3
    assert arms["qat"]["loss"] == pytest.approx(lines(whole, "validation")[-1]["loss"], abs=1e-5)


def test_the_whole_run_of_a_finished_student(prepared: Path, whole: Path, tmp_path: Path) -> None:
    """`start_fraction: 0` on a float student, with the float branch beside it."""
    run = tmp_path / "run"
    student = whole / "checkpoints" / "step_4"
    options = [
        "quant.start_fraction=0",
        f"arch.init={student}",
        "train.num_steps=4",
        "quant.compare_float=true",
    ]
    result = kdfast.train(config(prepared, run, *options))
    assert result.qat == "done"
    assert lines(run, "qat")[0] | {"step": 0, "event": "start"} == lines(run, "qat")[0]
    arms = [arm["name"] for arm in json.loads((run / "quantization.json").read_text())["arms"]]
    assert arms == ["float", "start, post-training", "float, post-training", "qat"]
    begun = load_file(run / "checkpoints" / "step_0" / "model.safetensors")
    floats = load_file(student / "model.safetensors")
    assert all(torch.equal(begun[name], floats[name]) for name in floats)


@pytest.mark.parametrize("change", [too_large_for_fp16, outliers])
def test_it_rolls_back_and_goes_on_at_half_the_rate(prepared: Path, tmp_path: Path, change: Any) -> None:
    run = tmp_path / "run"
    quant = ["quant.min_cosine=0.9999", "quant.learning_rate=1e-4"]
    result = kdfast.train(config(prepared, run, *quant), callbacks=[Fault(7, change)])
    assert (result.exit_code, result.qat) == (0, "done")
    back = [one for one in lines(run, "qat") if one["event"] == "rolled_back"]
    assert [(one["step"], one["rate_factor"]) for one in back] == [(6, 0.5)]
    assert ("not finite" in back[0]["reason"]) == (change is too_large_for_fp16)
    # each step is logged once: those that were undone are gone
    assert [one["step"] for one in lines(run, "train")] == list(range(1, 11))
    undisturbed = tmp_path / "undisturbed"
    kdfast.train(config(prepared, undisturbed, *quant))
    before, after = (lines(one, "train") for one in (undisturbed, run))
    assert before[:6] == after[:6]
    for one, two in zip(before[6:], after[6:], strict=True):
        assert two["learning_rate"] == pytest.approx(one["learning_rate"] / 2)
        assert two["shape"] == one["shape"]  # the sampler went back too
    check_saved(run / "student")


def test_a_loss_that_stays_too_high_rolls_back(prepared: Path, tmp_path: Path) -> None:
    """Every check passes: rounding is no worse than before. Only the loss tells that the phase diverges."""
    run = tmp_path / "run"

    def too_sure(student: Any) -> None:
        student.model.norm.weight.mul_(100)

    steps = ["train.num_steps=40", "quant.start_fraction=0.1", "train.checkpoint_every_steps=8"]
    result = kdfast.train(
        config(prepared, run, *steps, "quant.learning_rate=1e-5"), callbacks=[Fault(20, too_sure)]
    )
    assert result.qat == "done"
    back = [one for one in lines(run, "qat") if one["event"] == "rolled_back"]
    assert [(one["step"], one["rate_factor"]) for one in back] == [(18, 0.5)]
    assert back[0]["reason"].startswith("the loss diverges: 10 steps in a row up to step 30")


def test_it_gives_up_after_its_rollbacks_and_ends_in_float(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    fault = Fault(7, too_large_for_fp16, times=3)
    result = kdfast.train(config(prepared, run), callbacks=[fault])
    assert (result.exit_code, result.qat, result.step, fault.left) == (3, "failed", 10, 0)
    events = [(one["step"], one["event"]) for one in lines(run, "qat")]
    assert events == [(4, "start"), (4, "gave_up")]  # the checks and rollbacks were later steps'
    assert lines(run, "qat")[-1]["qat"] == "failed"
    # nothing of the phase is left: it is the run without quantisation
    plain = tmp_path / "plain"
    kdfast.train(config(prepared, plain, "quant.enabled=false"))
    assert lines(run, "train") == lines(plain, "train")
    assert all(torch.equal(one, weights(plain)[name]) for name, one in weights(run).items())
    assert not (run / "student" / "quantized.safetensors").exists()
    assert json.loads((run / "student" / "kdfast.json").read_text())["qat"] == "failed"
    assert json.loads((run / "quantization.json").read_text())["status"] == "failed"
    state = read_state(run / "checkpoints" / "step_10")
    assert state["qat"]["recovery"]["gave_up"] is True
    screen = capsys.readouterr().out
    assert screen.count("qat: failed") == 2  # when it happens, and at the end
    again = kdfast.train(config(prepared, run, "quant.fail_on_unstable=false"), resume=True)
    assert (again.exit_code, again.qat) == (0, "failed")


def test_a_first_check_that_fails_ends_in_float_at_once(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fault = Fault(4, outliers)
    result = kdfast.train(config(prepared, run, "quant.min_cosine=0.9999"), callbacks=[fault])
    assert (result.exit_code, result.qat) == (3, "failed")
    assert [one["event"] for one in lines(run, "qat")] == ["start", "gave_up"]


def test_a_nan_of_the_float_weights_is_the_runs_own_error(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DivergedError, match="training diverged"):
        kdfast.train(config(prepared, run), callbacks=[Fault(7, not_a_number)])
    assert [one["event"] for one in lines(run, "qat")] == ["start", "check"]


def test_the_student_is_float_between_the_steps_before_the_phase(prepared: Path, tmp_path: Path) -> None:
    seen: dict[int, bool] = {}

    def look(event: TrainEvent) -> bool:
        if event.kind == "step":
            seen[event.step] = is_qat_applied(event.student)
        return event.step == 6

    kdfast.train(config(prepared, tmp_path / "run"), callbacks=[look])
    assert seen == {1: False, 2: False, 3: False, 4: False, 5: True, 6: True}


def test_io_final_best_ships_the_scales_of_that_step(prepared: Path, tmp_path: Path) -> None:
    """The best step is before scales froze: its own scales ship, not the frozen ones."""
    run = tmp_path / "run"

    def worse(student: Any) -> None:
        student.model.norm.weight.mul_(50)

    options = ["io.final=best", "train.checkpoint_every_steps=0", "quant.freeze_fraction=0.5"]
    result = kdfast.train(config(prepared, run, *options), callbacks=[Fault(7, worse)])
    assert result.student_step == 6
    table, latent = (
        check_saved(run / "student"),
        load_file(run / "checkpoints" / "step_6" / "model.safetensors"),
    )
    for name, one in table.tensors.items():
        assert torch.equal(one.codes, quantize(latent[name], "int8_channel").codes)


def test_what_cannot_be_quantised_is_refused_before_the_first_step(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"^quant.min_steps: must be at most the steps under quantisation"):
        config(prepared, run, "quant.min_steps=7")
    with pytest.raises(
        ConfigError, match=r"^train.stop_after_validations: must be 0 unless quant.start_fraction"
    ):
        config(prepared, run, "train.stop_after_validations=2")
    scratch = ["arch.init=scratch", "arch.d_model=24", "arch.n_layers=1", "arch.n_heads=2", "arch.d_ff=48"]
    with pytest.raises(ConfigError, match=r"^quant.format: q4_0 has blocks of 32 weights.*\[24, 24\]"):
        kdfast.train(config(prepared, run, *scratch, "quant.format=q4_0", "quant.embeddings=none"))
    assert not run.exists()


def test_without_held_out_rows_the_probe_is_of_training_rows(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["data.validation=null", "train.validate_every_steps=0", "train.dtype=bf16"]
    result = kdfast.train(config(prepared, run, *options, "arch.freeze_embeddings=true"))
    assert result.qat == "done"
    assert [(one["step"], one["event"]) for one in lines(run, "qat")] == [
        (4, "start"), (10, "frozen"), (10, "check"),
    ]  # fmt: skip
    document = json.loads((run / "quantization.json").read_text())
    assert all("loss" not in arm for arm in document["arms"])  # nothing held out, nothing measured
