"""Runs under quantisation that are stopped, killed, or go on for more steps: the same student as without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import PATIENCE_S
from qat_runs import (
    Fault,
    assert_same_run,
    config,
    lines,
    prepare,
    stop_at,
    too_large_for_fp16,
)
from safetensors.torch import load_file

import kdfast
from kdfast.errors import CheckpointError, ConfigError
from kdfast.quantized import read_table

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


@pytest.mark.parametrize("step", [3, 4, 5, 7, 8, 9])
def test_a_run_resumed_at_any_step_of_the_phase_is_the_same(
    prepared: Path, whole: Path, tmp_path: Path, step: int
) -> None:
    run = tmp_path / "run"
    stopped = kdfast.train(config(prepared, run), callbacks=[stop_at(step)])
    assert (stopped.exit_code, stopped.step) == (130, step)
    resumed = kdfast.train(config(prepared, run), resume=True)
    assert resumed.qat == "done"
    assert_same_run(run, whole)


def test_q4_0_with_self_distillation_is_the_same_when_resumed(prepared: Path, tmp_path: Path) -> None:
    quant = [
        "quant.format=q4_0",
        "quant.self_kd_weight=1",
        "quant.task_factor=0.5",
        "quant.learning_rate=3e-3",
    ]
    once, twice = tmp_path / "once", tmp_path / "twice"
    kdfast.train(config(prepared, once, *quant))
    kdfast.train(config(prepared, twice, *quant), callbacks=[stop_at(7)])
    kdfast.train(config(prepared, twice, *quant), resume=True)
    assert_same_run(once, twice)
    assert [("self_kl" in one) for one in lines(once, "train")] == [False] * 4 + [True] * 6
    assert all("self_kl" not in one for one in lines(once, "validation"))
    formats = {name: one.format for name, one in read_table(once / "student").tensors.items()}
    assert formats["model.embed_tokens.weight"] == "q8_0"
    assert formats["model.layers.0.mlp.up_proj.weight"] == "q4_0"


def test_a_run_resumed_after_a_rollback_is_the_same(prepared: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    kdfast.train(config(prepared, once), callbacks=[Fault(7, too_large_for_fp16)])
    stopped = kdfast.train(config(prepared, twice), callbacks=[Fault(7, too_large_for_fp16), stop_at(9)])
    assert stopped.step == 9
    kdfast.train(config(prepared, twice), resume=True)
    assert_same_run(once, twice)


def test_num_steps_may_change_but_not_where_the_phase_began(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kdfast.train(config(prepared, run), callbacks=[stop_at(5)])
    result = kdfast.train(config(prepared, run, "train.num_steps=14"), resume=True)
    assert (result.step, result.qat) == (14, "done")
    assert [one["step"] for one in lines(run, "qat") if one["event"] == "start"] == [4]
    assert [one["step"] for one in lines(run, "qat") if one["event"] == "frozen"] == [13]


def test_a_damaged_or_missing_phase_is_an_error_of_the_checkpoint(
    prepared: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kdfast.train(config(prepared, run), callbacks=[stop_at(7)])
    kept = tmp_path / "kept"
    shutil.copytree(run, kept)
    file = run / "checkpoints" / "step_7" / "qat.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(
        CheckpointError, match=r"damaged \(qat.safetensors\); remove it to go on from an older one"
    ):
        kdfast.train(config(prepared, run), resume=True)
    state = kept / "checkpoints" / "step_7" / "state.json"
    document = json.loads(state.read_text())
    del document["state"]["qat"]["recovery"]
    state.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="state of quantisation is damaged"):
        kdfast.train(config(prepared, kept), resume=True)
    shutil.rmtree(run / "checkpoints" / "step_7")
    kdfast.train(config(prepared, run), resume=True)  # from the older one
    assert_same_run(run, whole)


def test_a_kill_while_the_phases_first_checkpoint_replaces_another(
    prepared: Path, whole: Path, tmp_path: Path
) -> None:
    """It takes the former one's name away for an instant: the run goes on from it, not from the beginning."""
    run = tmp_path / "run"
    kdfast.train(config(prepared, run), callbacks=[stop_at(4)])
    folder = run / "checkpoints"
    (folder / "step_4").rename(folder / ".step_4.old-1")
    (folder / ".step_4.tmp-1").mkdir()
    kdfast.train(config(prepared, run), resume=True)
    assert_same_run(run, whole)
    assert not list(folder.glob(".step_4.*"))


def test_a_kill_before_the_line_of_an_event_is_written(prepared: Path, tmp_path: Path) -> None:
    """The checkpoint knows the event: a resumed run writes the line that is missing."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    kdfast.train(config(prepared, once), callbacks=[Fault(7, too_large_for_fp16)])
    kdfast.train(config(prepared, twice), callbacks=[Fault(7, too_large_for_fp16), stop_at(9)])
    assert any(one["event"] == "rolled_back" for one in lines(twice, "qat"))
    kept = [line for line in (twice / "metrics.jsonl").read_text().splitlines() if "rolled_back" not in line]
    (twice / "metrics.jsonl").write_text("".join(line + "\n" for line in kept))
    kdfast.train(config(prepared, twice), resume=True)
    one, other = (sorted(lines(run, "qat"), key=str) for run in (once, twice))
    assert one == other


def test_a_weight_too_large_for_fp16_is_found_after_a_resume_as_without(
    prepared: Path, tmp_path: Path
) -> None:
    quant = ["train.validate_every_steps=5", "train.checkpoint_every_steps=5"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    kdfast.train(config(prepared, once, *quant), callbacks=[Fault(7, too_large_for_fp16)])
    kdfast.train(config(prepared, twice, *quant), callbacks=[Fault(7, too_large_for_fp16), stop_at(7)])
    result = kdfast.train(config(prepared, twice, *quant), resume=True)
    assert result.qat == "done"
    assert_same_run(once, twice)


def test_a_run_is_not_cut_short_of_its_quantisation(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kdfast.train(config(prepared, run), callbacks=[stop_at(3)])
    with pytest.raises(
        ConfigError, match=r"^train.num_steps: must be at least 4 \(quantisation begins at step 3"
    ):
        kdfast.train(config(prepared, run, "train.num_steps=3"), resume=True)
    kdfast.train(config(prepared, run), resume=True, callbacks=[stop_at(5)])
    with pytest.raises(
        ConfigError, match=r"^train.num_steps: must be at least 7 \(quantisation begins at step 4"
    ):
        kdfast.train(config(prepared, run, "train.num_steps=5", "quant.min_steps=3"), resume=True)


def test_a_finished_run_that_goes_on_follows_its_weights_again_until_the_new_end(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    kdfast.train(config(prepared, run))
    assert any("scales." in name for name in load_file(run / "checkpoints" / "step_10" / "qat.safetensors"))
    longer = config(prepared, run, "train.num_steps=20")
    kdfast.train(longer, resume=True, callbacks=[stop_at(12)])
    assert not any(
        "scales." in name for name in load_file(run / "checkpoints" / "step_12" / "qat.safetensors")
    )
    rate = lines(run, "train")[10]["learning_rate"]
    assert f"falls to step 20, not to 10: the next step's is {rate:.2e}" in " ".join(
        capsys.readouterr().out.split()
    )
    assert kdfast.train(longer, resume=True).qat == "done"
    assert [one["step"] for one in lines(run, "qat") if one["event"] == "frozen"] == [10, 18]


def test_the_float_branch_may_be_asked_for_afterwards(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kdfast.train(config(prepared, run))
    kdfast.train(config(prepared, run, "quant.compare_float=true"), resume=True)
    arms = json.loads((run / "quantization.json").read_text())["arms"]
    assert [arm["name"] for arm in arms] == ["float", "start, post-training", "float, post-training", "qat"]
    assert arms[2]["title"] == "6 steps in float, quantised after training"
    # a file that lost what is printed is made anew
    document = json.loads((run / "quantization.json").read_text())
    for damaged in (
        {**document, "arms": None},
        {**document, "arms": [{"name": "qat"}]},
        {**document, "judgement": [1]},
    ):
        (run / "quantization.json").write_text(json.dumps(damaged))
        kdfast.train(config(prepared, run, "quant.compare_float=true"), resume=True)
        assert json.loads((run / "quantization.json").read_text()) == document


def test_what_was_measured_on_undone_weights_is_measured_anew(prepared: Path, tmp_path: Path) -> None:
    """The best step before and after giving up has the same number, but is another student."""
    run = tmp_path / "run"
    options = ["io.final=best", "train.eval_prompts=2", "train.eval_max_new_tokens=8"]
    quantised = kdfast.train(config(prepared, run, *options))
    old = json.loads((run / "evaluation_after.json").read_text())
    faults = [Fault(11, too_large_for_fp16, times=3)]
    longer = config(prepared, run, *options, "train.num_steps=12", "quant.fail_on_unstable=false")
    given_up = kdfast.train(longer, resume=True, callbacks=faults)
    assert (quantised.qat, given_up.qat) == ("done", "failed")
    new = json.loads((run / "evaluation_after.json").read_text())
    assert new["step"] == given_up.student_step
    assert json.loads((run / "quantization.json").read_text())["status"] == "failed"
    assert old["step"] == quantised.student_step


def test_a_checkpoint_of_the_phases_beginning_that_is_gone_is_said_at_once(
    prepared: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kdfast.train(config(prepared, run), callbacks=[stop_at(7)])
    shutil.rmtree(run / "checkpoints" / "step_4")
    with pytest.raises(
        CheckpointError, match=r"^the checkpoint at which quantisation began is gone; put it back"
    ):
        kdfast.train(config(prepared, run), resume=True)


def test_two_ranks_roll_back_together(prepared: Path, tmp_path: Path) -> None:
    """They take part in every decision, and train what one rank trains."""
    one, two = tmp_path / "one", tmp_path / "two"
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import kdfast\n"
        "from qat_runs import Fault, config, too_large_for_fp16\n"
        "from pathlib import Path\n"
        "prepared, run = map(Path, sys.argv[1:])\n"
        "kdfast.train(config(prepared, run), callbacks=[Fault(7, too_large_for_fp16)])\n",
        encoding="utf-8",
    )
    kdfast.train(config(prepared, one), callbacks=[Fault(7, too_large_for_fp16)])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    support = str(Path(__file__).parents[1] / "support")
    subprocess.run(
        [*command, str(prepared), str(two)],
        check=True,
        env={**os.environ, "PYTHONPATH": support},
        timeout=PATIENCE_S,
    )
    for kind in ("train", "validation"):
        for here, there in zip(lines(one, kind), lines(two, kind), strict=True):
            assert here.pop("kind") == there.pop("kind") == kind
            assert here == pytest.approx(there, rel=1e-3), kind
    assert [(one["step"], one["event"]) for one in lines(one, "qat")] == [
        (other["step"], other["event"]) for other in lines(two, "qat")
    ]
    assert "rolled_back" in [event["event"] for event in lines(two, "qat")]
