"""Whole runs under quantisation of a tiny model, and faults that enter by a callback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny_run import write_config

from kdfast.config import Config, load_config
from kdfast.quantized import read_table
from kdfast.recipes.train.events import TrainEvent

PLAIN = [
    "kd.kl_weight=0", "kd.length_weight=0", "kd.early_tool_ce_weight=0", "kd.early_tool_prior_weight=0",
    "speed.every_validations=0", "gates.enabled=[]", "optimizer.warmup_steps=0", "train.num_steps=10",
    "train.validate_every_steps=2", "train.checkpoint_every_steps=2", "train.keep_last=1",
    "quant.enabled=true", "quant.start_fraction=0.4", "quant.min_steps=1", "quant.warmup_steps=1",
    "quant.learning_rate=1e-3", "quant.min_cosine=0.9",
]  # fmt: skip
TIMES = {"seconds", "tokens_per_second"}


def config(prepared: Path, run: Path, *overrides: str) -> Config:
    return load_config(prepared / "config.yaml", [*PLAIN, f"io.run_dir={run}", *overrides])


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if k not in TIMES} for one in found if one["kind"] == kind]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "student" / "model.safetensors")


def checkpoints(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").iterdir()}


def assert_same_run(one: Path, other: Path) -> None:
    for kind in ("train", "validation", "qat"):
        assert lines(one, kind) == lines(other, kind), kind
    here, there = weights(one), weights(other)
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert read_table(one / "student").fingerprint() == read_table(other / "student").fingerprint()


def stop_at(step: int) -> Callable[[TrainEvent], bool]:
    return lambda event: event.kind == "step" and event.step == step


class Fault:
    """A callback that overwrites the student's weights after a step, so many times."""

    def __init__(self, step: int, change: Callable[[Any], None], times: int = 1) -> None:
        self.step, self.change, self.left = step, change, times

    def __call__(self, event: TrainEvent) -> None:
        if event.kind == "step" and event.step == self.step and self.left:
            self.left -= 1
            with torch.no_grad():
                self.change(event.student)


def too_large_for_fp16(student: Any) -> None:
    """Its scale is infinite, so the quantised weight is not a number; float only sees a large weight."""
    student.model.layers[0].mlp.down_proj.weight[0, 0] = 1e7


def outliers(student: Any) -> None:
    """A large weight in each row and column: the steps of int8 are too wide for all others."""
    for layer in student.model.layers:
        for linear in (
            layer.mlp.down_proj,
            layer.mlp.up_proj,
            layer.self_attn.v_proj,
            layer.self_attn.o_proj,
        ):
            rows = torch.arange(len(linear.weight))
            linear.weight[rows, rows % linear.weight.shape[1]] += 30 * linear.weight.abs().max()


def not_a_number(student: Any) -> None:
    student.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")


def prepare(directory: Path) -> Path:
    """Writes records and a tiny model; runs differ by overrides only."""
    write_config(directory)
    return directory
