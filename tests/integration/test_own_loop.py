"""Loops of the user's own: `kdfast.train` with callbacks, `kdfast.train_step`, and what a run does at its end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run_command
from safetensors.torch import load_file
from tiny_run import write_config
from torch.nn import functional
from transformers import AutoModelForCausalLM

import kdfast
from kdfast.batch import SOURCES
from kdfast.config import Config, KDConfig, load_config
from kdfast.data import KDDataset
from kdfast.errors import CheckpointError, ConfigError, DataError, KdfastError

pytestmark = pytest.mark.slow

GETS_WORSE = ["optimizer.learning_rate=2.0", "optimizer.warmup_steps=8"]
"""A learning rate that grows from far too much to more: the held-out loss only rises."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records, a tiny teacher and a config that needs no teacher store."""
    directory = tmp_path_factory.mktemp("own_loop")
    write_config(directory)
    return directory


def config(prepared: Path, run: Path, *overrides: str) -> Config:
    plain = [
        "kd.kl_weight=0",
        "kd.length_weight=0",
        "kd.early_tool_ce_weight=0",
        "kd.early_tool_prior_weight=0",
    ]
    quick = ["speed.every_validations=0", "gates.enabled=[]", "optimizer.warmup_steps=0"]
    return load_config(prepared / "config.yaml", [*plain, *quick, f"io.run_dir={run}", *overrides])


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_callbacks_see_every_step_validation_checkpoint_and_the_end(prepared: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, Path | None]] = []
    losses: dict[int, float] = {}

    def remember(event: kdfast.TrainEvent) -> None:
        seen.append((event.kind, event.step, event.path))
        if event.kind == "step":
            losses[event.step] = event.values["loss"]
        if event.kind == "checkpoint":
            assert event.path is not None
            assert (event.path / "model.safetensors").exists()

    run = tmp_path / "run"
    result = kdfast.train(config(prepared, run, "train.num_steps=4"), callbacks=[remember])
    checkpoints = run / "checkpoints"
    assert seen == [
        ("validation", 0, None),
        ("step", 1, None),
        ("step", 2, None),
        ("checkpoint", 2, checkpoints / "step_2"),
        ("step", 3, None),
        ("step", 4, None),
        ("validation", 4, None),
        ("checkpoint", 4, checkpoints / "step_4"),
        ("end", 4, run / "student"),
    ]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses == {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
    assert (result.exit_code, result.step, result.student, result.student_step) == (0, 4, run / "student", 4)
    assert (result.finished, result.best_step) == (True, 4)
    assert result.validation == result.best_validation
    assert json.loads((run / "student" / "kdfast.json").read_text()) == {
        "step": 4,
        "final": "last",
        "ended": "num_steps",
    }


def test_a_callback_stops_a_run_that_goes_on_as_if_nothing_had_been(prepared: Path, tmp_path: Path) -> None:
    kinds: list[str] = []

    def stop_at_3(event: kdfast.TrainEvent) -> bool:
        kinds.append(event.kind)
        return event.kind == "step" and event.step == 3

    run, whole = tmp_path / "run", tmp_path / "whole"
    stopped = kdfast.train(config(prepared, run, "train.num_steps=5"), callbacks=[stop_at_3])
    assert (stopped.exit_code, stopped.step, stopped.student, stopped.finished) == (130, 3, None, False)
    assert kinds[-1] == "end"
    assert not (run / "student").exists()
    assert kdfast.train(config(prepared, run, "train.num_steps=5"), resume=True).finished
    assert kdfast.train(config(prepared, whole, "train.num_steps=5")).finished
    assert same(weights(run / "student"), weights(whole / "student"))


def test_an_error_in_a_callback_ends_the_run(prepared: Path, tmp_path: Path) -> None:
    def fail(event: kdfast.TrainEvent) -> None:
        if event.step == 2:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        kdfast.train(config(prepared, tmp_path / "run"), callbacks=[fail])


def test_the_best_student_is_kept_named_and_evaluated(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = [*GETS_WORSE, "train.validate_every_steps=2", "train.checkpoint_every_steps=0"]
    arguments = [*given, "io.final=best", "train.keep_last=1", "train.num_steps=8", "train.eval_prompts=2"]
    shown = [f"io.run_dir={run}", "kd.kl_weight=0", "gates.enabled=[]"]
    finished = run_command("train", prepared / "config.yaml", *shown, *arguments, "speed.every_validations=9")
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "validation" and line["step"]}
    best = min(losses, key=lambda step: losses[step])
    assert best < 8, "this test needs a run that gets worse"
    assert same(weights(run / "student"), weights(run / "checkpoints" / f"step_{best}"))
    assert not same(weights(run / "student"), weights(run / "checkpoints" / "step_8"))
    origin = json.loads((run / "student" / "kdfast.json").read_text())
    assert origin == {"step": best, "final": "best", "ended": "num_steps"}
    assert json.loads((run / "evaluation_after.json").read_text())["step"] == best
    assert json.loads((run / "speed.json").read_text())["step"] == best, "the speed is that of the student"
    assert f"student (step {best})" in finished.stdout
    assert f"best         {run}/checkpoints/step_{best} (held-out loss {losses[best]:.4f})" in finished.stdout

    shutil.rmtree(run / "checkpoints" / f"step_{best}")
    again = load_config(prepared / "config.yaml", [*shown, *arguments, "speed.every_validations=9"])
    with pytest.raises(CheckpointError, match=r"io.final is 'best', and .* is gone; set io.final=last"):
        kdfast.train(again, resume=True)
    last = load_config(prepared / "config.yaml", [*shown, *arguments, "io.final=last"])
    assert kdfast.train(last, resume=True).student_step == 8
    assert same(weights(run / "student"), weights(run / "checkpoints" / "step_8"))


def test_a_run_that_gets_no_better_stops_early_and_stays_so(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    given = [*GETS_WORSE, "train.validate_every_steps=1", "train.num_steps=50"]
    early = config(prepared, run, *given, "train.stop_after_validations=3")
    result = kdfast.train(early)
    assert (result.finished, result.student) == (True, run / "student")
    assert result.best_step is not None
    assert result.step == result.best_step + 3 < 50
    assert json.loads((run / "student" / "kdfast.json").read_text())["ended"] == "stop_after_validations"
    before = (run / "metrics.jsonl").read_bytes()
    assert kdfast.train(early, resume=True).step == result.step
    assert (run / "metrics.jsonl").read_bytes() == before
    out = " ".join(capsys.readouterr().out.split())
    assert (
        f"stopped early at step {result.step}: the last 3 validations brought no lower held-out loss" in out
    )
    assert "nothing is left to train: the last 3 validations brought no lower loss" in out
    on = config(prepared, run, *given, "train.num_steps=9", "train.stop_after_validations=0")
    assert kdfast.train(on, resume=True).step == max(9, result.step)


def test_a_refused_start_leaves_nothing_and_changes_nothing(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    with pytest.raises(ConfigError, match=r"train.device"):
        kdfast.train(config(prepared, run, "train.device=cuda"))
    with pytest.raises(
        DataError, match=r"train.eval_prompts asks for more held-out prompts than the file has"
    ):
        kdfast.train(config(prepared, run, "train.eval_prompts=400"))
    with pytest.raises(ConfigError, match=r"^data.train: no such file"):
        kdfast.train(config(prepared, run, "data.train=nowhere.jsonl"))
    assert not run.parent.exists()
    assert kdfast.train(config(prepared, run, "train.num_steps=2")).finished

    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"train.num_steps: the run is beyond that already"):
        kdfast.train(config(prepared, run, "train.num_steps=1"), resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == kept


def test_results_of_a_former_student_go_with_it(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = [run / name for name in ("evaluation_after.json", "evaluation_after.csv", "gates.json")]
    first = ["train.num_steps=1", "train.eval_prompts=1", "gates.enabled=[f1]"]
    kdfast.train(config(prepared, run, *first))
    assert all(path.exists() for path in results)
    kdfast.train(config(prepared, run, "train.num_steps=1"), resume=True)
    assert all(path.exists() for path in results), "they are of this student"
    kdfast.train(config(prepared, run, "train.num_steps=2"), resume=True)
    assert not any(path.exists() for path in results)


def test_a_speed_report_of_the_users_own_is_left(prepared: Path, tmp_path: Path) -> None:
    run, measured = tmp_path / "run", "speed.every_validations=1"
    kdfast.train(config(prepared, run, "train.num_steps=1", measured))
    report = json.loads((run / "speed.json").read_text())
    assert report.pop("step") == 1
    (run / "speed.json").write_text(json.dumps(report))  # as `kdfast measure` writes it
    kept = (run / "speed.json").read_bytes()
    kdfast.train(config(prepared, run, "train.num_steps=1", measured), resume=True)
    assert (run / "speed.json").read_bytes() == kept


def test_more_steps_on_the_old_schedule(prepared: Path, tmp_path: Path) -> None:
    rates: dict[int, float] = {}

    def remember(event: kdfast.TrainEvent) -> None:
        if event.kind == "step":
            rates[event.step] = event.values["learning_rate"]

    run = tmp_path / "run"
    kdfast.train(config(prepared, run, "train.num_steps=3"), callbacks=[remember])
    longer = config(prepared, run, "train.num_steps=5", "optimizer.schedule_steps=3")
    kdfast.train(longer, resume=True, callbacks=[remember])
    # a cosine from the peak to a tenth of it, and then it stays there
    assert [rates[step] for step in range(1, 6)] == pytest.approx([1e-3, 5.5e-4, 1e-4, 1e-4, 1e-4])


def test_train_step_is_a_step_of_plain_torch(prepared: Path) -> None:
    """The example of the docs, against cross-entropy, clipping and AdamW written out."""
    dataset = KDDataset(prepared / "train.jsonl", prepared / "teacher", shapes=[192, 256, 512])
    kd = KDConfig(kl_weight=0, ce_teacher_weight=0, ce_truth_weight=1.0, name_weight=0, args_weight=0)
    objective = kdfast.Objective.of(dataset, kd)
    truths = [row for row in range(len(dataset)) if int(dataset[row]["source"]) == SOURCES["truth"]][:6]
    ours, theirs = (AutoModelForCausalLM.from_pretrained(prepared / "teacher") for _ in range(2))
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3) for model in (ours, theirs)]
    states = None
    for step in range(3):
        batch = kdfast.collate_kd_batch(dataset.__getitems__(truths[2 * step : 2 * step + 2]))
        report = kdfast.train_step(
            ours, batch, optimizer=optimizers[0], objective=objective, step=step, states=states
        )
        states = report.states

        logits = theirs(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizers[1].step()
        optimizers[1].zero_grad()
        assert report.values["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
        assert report.values["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
        assert all(parameter.grad is None for parameter in ours.parameters())
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-5)


def test_micro_batches_of_train_step_add_up(prepared: Path) -> None:
    dataset = KDDataset(prepared / "train.jsonl", prepared / "teacher", shapes=[192, 256, 512])
    objective = kdfast.Objective.of(dataset, KDConfig(kl_weight=0, ce_truth_weight=1.0))
    values: list[dict[str, Any]] = []
    for parts in ([[0, 1, 2, 3]], [[0, 1], [2, 3]]):
        model = AutoModelForCausalLM.from_pretrained(prepared / "teacher")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = [kdfast.collate_kd_batch(dataset.__getitems__(part)) for part in parts]
        report = kdfast.train_step(model, batches, optimizer=optimizer, objective=objective)
        values.append(report.values)
    assert values[0]["loss"] == pytest.approx(values[1]["loss"], rel=1e-5)
    assert values[0]["grad_norm"] == pytest.approx(values[1]["grad_norm"], rel=1e-4)


def test_rows_of_ones_own_need_no_number_and_must_say_who_wrote_them(prepared: Path) -> None:
    dataset = KDDataset(prepared / "train.jsonl", prepared / "teacher", shapes=[192, 256, 512])
    objective = kdfast.Objective.of(dataset, KDConfig(kl_weight=0, ce_truth_weight=1.0))
    model = AutoModelForCausalLM.from_pretrained(prepared / "teacher")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = ("input_ids", "attention_mask", "labels", "source")
    rows = [{name: dataset[row][name] for name in names} | {"id": f"row {row}"} for row in (0, 1)]
    batch: Any = kdfast.collate_kd_batch(rows, keep=["id"])
    assert kdfast.train_step(model, batch, optimizer=optimizer, objective=objective).values["loss"] > 0
    for name in names:
        less = {key: value for key, value in batch.items() if key != name}
        with pytest.raises(DataError, match=rf"^{name}: the batch lacks this field"):
            kdfast.train_step(model, less, optimizer=optimizer, objective=objective)


def test_a_diverged_step_changes_no_weight(prepared: Path) -> None:
    dataset = KDDataset(prepared / "train.jsonl", prepared / "teacher", shapes=[192, 256, 512])
    objective = kdfast.Objective.of(dataset, KDConfig(kl_weight=0, ce_truth_weight=1.0))
    model = AutoModelForCausalLM.from_pretrained(prepared / "teacher")
    with torch.no_grad():
        model.model.norm.weight[0] = torch.inf
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = kdfast.collate_kd_batch(dataset.__getitems__([0, 1]))
    with pytest.raises(KdfastError, match="training diverged"):
        kdfast.train_step(
            model, batch, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), objective=objective
        )
    assert same(before, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(DataError, match="teacher_logits"):
        kdfast.collate_kd_batch([dataset[0] | {"teacher_logits": 1}])
