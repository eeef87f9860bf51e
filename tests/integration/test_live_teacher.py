"""A teacher in the training step: equal to training against its whole logits, and a run from config to student."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import diverging_ranks
import pytest
import torch
from commands import PATIENCE_S, exit_code, run_command
from tiny_models import tiny_llama
from tiny_run import write_config
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import kdfast
from kdfast.config import KDConfig
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.distributed.ranks import Ranks
from kdfast.errors import DivergedError
from kdfast.recipes.train.live_teacher import FrozenTeacher
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.recipes.train.validate import validate

pytestmark = pytest.mark.slow

KD = {
    "kl_weight": 0.5,
    "ce_teacher_weight": 0.0,
    "ce_truth_weight": 0.2,
    "name_weight": 0.0,
    "args_weight": 0.0,
    "temperature": 2.0,
    "prompt_kl_weight": 0.25,
    "hidden_state_weight": 0.125,
    "hidden_state_form": "mse",
    "hidden_state_student_layers": (1, -1),
    "hidden_state_teacher_layers": (2, -1),
    "chunk_rows": 16,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    write_config(folder)
    return folder


def dataset(prepared: Path) -> KDDataset:
    return KDDataset(prepared / "train.jsonl", prepared / "teacher", shapes=[256, 512], threads=1)


def oracle(student: Any, teacher: Any, batch: dict[str, Tensor], usable: int) -> Tensor:
    """The loss from whole logits [B,T,V] of both models, by the formulas."""
    ids, token = batch["input_ids"], batch["attention_mask"].bool()
    mine = student(input_ids=ids, output_hidden_states=True)
    with torch.no_grad():
        theirs = teacher(input_ids=ids, output_hidden_states=True)
    heat = KD["temperature"]
    logits = theirs.logits[..., :usable] / heat
    absent = (logits.amax(-1, keepdim=True) - 60).expand(-1, -1, mine.logits.shape[-1] - usable)
    logp = torch.log_softmax(torch.cat([logits, absent], -1), -1)
    logq = torch.log_softmax(mine.logits / heat, -1)
    kl = heat**2 * (logp.exp() * (logp - logq)).sum(-1)
    answer = batch["labels"] != -100
    prompt = token & ~answer & functional.pad(token[:, 1:], (0, 1))
    truth = answer & (batch["source"] == 1)[:, None]
    ce = functional.cross_entropy(mine.logits[truth], batch["labels"][truth])
    counted = token & (torch.arange(token.shape[1]) > 0)
    distances = [
        (
            (
                (mine.hidden_states[a] - theirs.hidden_states[b])
                / theirs.hidden_states[b].square().mean(-1, True).sqrt()
            )
            ** 2
        )
        .mean(-1)[counted]
        .mean()
        for a, b in ((1, 2), (-1, -1))
    ]
    return (
        KD["kl_weight"] * kl[answer].mean()
        + KD["prompt_kl_weight"] * kl[prompt].mean()
        + KD["ce_truth_weight"] * ce
        + KD["hidden_state_weight"] * sum(distances) / 2
    )


def test_training_equals_training_against_the_teacher_s_whole_logits(prepared: Path) -> None:
    data = dataset(prepared)
    vocab, usable = data.tokenizer.vocab_size + 16, data.tokenizer.vocab_size
    sizes = {"vocab_size": vocab, "max_position_embeddings": 512}
    teacher = tiny_llama(seed=1, layers=3, **sizes).double()
    one, other = (tiny_llama(seed=2, layers=2, **sizes).double().train() for _ in range(2))
    objective = kdfast.Objective.of(data, KDConfig(**KD), live_teacher=True)
    model = StudentLoss(one, objective, FrozenTeacher(teacher, usable))
    optimizers = [torch.optim.SGD(of.parameters(), lr=0.05) for of in (one, other)]
    for step in range(3):
        batch = collate_kd_batch(data.__getitems__(list(range(4 * step, 4 * step + 4))))
        report = kdfast.train_step(
            model, batch, optimizer=optimizers[0], objective=objective, step=step, max_grad_norm=0
        )
        loss = oracle(other, teacher, batch, usable)
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        assert report.values["loss"] == pytest.approx(float(loss.detach()), rel=1e-7)
        assert {"kl", "prompt_kl", "hidden_state", "ce_truth"} <= report.values.keys()
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9, msg=name)


class _Largest(TorchDispatchMode):
    """The largest number of logits in one tensor."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab, self.rows = vocab, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor) and one.dim() and one.shape[-1] == self.vocab:
                self.rows = max(self.rows, one.numel() // self.vocab)
        return out


def test_no_more_logits_than_a_chunk_s_exist_at_once(prepared: Path) -> None:
    data = dataset(prepared)
    vocab = data.tokenizer.vocab_size + 16
    sizes = {"vocab_size": vocab, "max_position_embeddings": 512, "layers": 2}
    student = tiny_llama(seed=2, **sizes).train()
    objective = kdfast.Objective.of(
        data, KDConfig(**{**KD, "hidden_state_weight": 0.0, "chunk_rows": 40}), live_teacher=True
    )
    model = StudentLoss(student, objective, FrozenTeacher(tiny_llama(seed=1, **sizes)))
    batch = collate_kd_batch(data.__getitems__(list(range(8))))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    with _Largest(vocab) as seen:
        kdfast.train_step(model, batch, optimizer=optimizer, objective=objective)
    assert batch["attention_mask"].sum() > 100
    assert 0 < seen.rows <= 40


def test_validation_knows_nothing_of_self_distillation(prepared: Path) -> None:
    data = dataset(prepared)
    student = tiny_llama(vocab_size=data.tokenizer.vocab_size, max_position_embeddings=512)
    objective = kdfast.Objective.of(data, KDConfig(kl_weight=0.5, prompt_kl_weight=0.5), live_teacher=True)
    model = StudentLoss(
        student, objective, FrozenTeacher(tiny_llama(seed=1, vocab_size=data.tokenizer.vocab_size))
    )
    runner = Runner(model, objective, torch.device("cpu"), False, Ranks())
    taught = replace(
        runner, objective=objective.with_self_teaching(2.0, 0.0)
    )  # there is no model that would teach

    def values(of: Runner) -> dict[str, float]:
        return validate(of, data, rows=6, micro_batch_size=4, on_progress=lambda _: None)

    assert values(taught) == values(runner)
    assert {"kl", "prompt_kl", "token_agreement"} <= values(runner).keys()
    assert "self_kl" not in values(runner)
    model.train()
    with torch.no_grad():
        student.lm_head.weight[5] = torch.nan
    with pytest.raises(DivergedError, match=r"^training diverged: "):
        values(runner)
    assert model.training  # a run that goes back to a checkpoint goes on in training mode


LIVE = [
    "teacher.live=true",
    "teacher.store=null",
    "kd.temperature=2",
    "speed.every_validations=0",
    "gates.enabled=[]",
]


def train(prepared: Path, run: Path, *overrides: str) -> int:
    return exit_code("train", prepared / "config.yaml", *LIVE, f"io.run_dir={run}", *overrides)


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line for line in found if line["kind"] == kind]


def test_a_run_learns_from_it_without_a_store_and_goes_on_bit_by_bit(prepared: Path, tmp_path: Path) -> None:
    off = ["length", "early_tool_ce", "early_tool_prior", "ce_teacher", "ce_truth"]
    terms = ["kd.prompt_kl_weight=0.5", "kd.hidden_state_weight=0.25", "arch.layers=1"]
    terms += ["optimizer.learning_rate=0.01", *(f"kd.{name}_weight=0" for name in off)]
    assert train(prepared, tmp_path / "whole", *terms) == 0
    first = lines(tmp_path / "whole", "validation")[0]
    last = lines(tmp_path / "whole", "validation")[-1]
    for name in ("kl", "prompt_kl", "hidden_state", "token_agreement"):
        assert name in first, name
    assert last["kl"] < first["kl"]
    assert last["prompt_kl"] < first["prompt_kl"]
    assert train(prepared, tmp_path / "parts", *terms, "train.num_steps=4", "optimizer.schedule_steps=8") == 0
    assert train(prepared, tmp_path / "parts", *terms, "--resume", "optimizer.schedule_steps=8") == 0
    assert lines(tmp_path / "parts", "train")[-1]["loss"] == lines(tmp_path / "whole", "train")[-1]["loss"]


def test_a_student_that_is_the_teacher_agrees_with_it_layer_by_layer(prepared: Path, tmp_path: Path) -> None:
    only = ["kd.hidden_state_weight=0.25", "optimizer.learning_rate=1e-12"]
    assert train(prepared, tmp_path / "run", *only, "train.num_steps=1", "optimizer.warmup_steps=0") == 0
    first = lines(tmp_path / "run", "validation")[0]
    assert abs(first["hidden_state"]) < 1e-5
    assert first["token_agreement"] == 1.0


def test_another_teacher_is_refused_on_resume_and_a_moved_one_is_not(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(prepared, tmp_path / "run", "train.num_steps=1", "optimizer.warmup_steps=0") == 0
    more = ("--resume", "train.num_steps=2", "optimizer.warmup_steps=0")
    other = tmp_path / "teacher"
    other.mkdir()
    for file in (prepared / "teacher").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(json.dumps(json.loads(text) | {"rms_norm_eps": 1e-4}))
    assert train(prepared, tmp_path / "run", *more, f"teacher.model={other}") == 2
    assert "error: teacher.live: changed since the checkpoint" in capsys.readouterr().err
    (other / "config.json").write_text(text)
    assert train(prepared, tmp_path / "run", *more, f"teacher.model={other}") == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["kd.kl_weight=0"], "teacher.live: must be false while"),
        (["kd.sampled_kl_weight=0.5"], "kd.sampled_kl_weight: needs teacher_sample_ids"),
        (["kd.hidden_state_weight=1", "kd.hidden_state_student_layers=[3]", "kd.hidden_state_teacher_layers=[1]"],
         "kd.hidden_state_student_layers: must be at most 2"),
        (["teacher.model=nowhere"], "teacher.model: "),
        (["teacher.device=cuda"], "teacher.device: must be 'auto' or the student's device (cpu)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(
    prepared: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    run = tmp_path / "run"
    result = run_command("train", prepared / "config.yaml", *LIVE, f"io.run_dir={run}", *overrides)
    assert result.returncode in (2, 5)
    assert message in result.stderr
    assert not run.exists()


def test_what_goes_wrong_on_one_rank_ends_the_step_on_all(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*launcher, str(Path(diverging_ranks.__file__)), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=PATIENCE_S,  # they once waited for each other for ever
    )
    assert result.returncode == 0, result.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["good"] == second["good"] == ["none", ""]
    # the labels of the second rank are outside the vocabulary
    assert first["labels"] == ["KdfastError", "another rank failed, and its message says why"]
    assert second["labels"][0] == "DataError"
    assert first["diverged"] == [
        "DivergedError",
        "training diverged on another rank, whose message names the rows",
    ]
    assert second["diverged"][0] == "DivergedError"
    assert "are not finite in" in second["diverged"][1]
