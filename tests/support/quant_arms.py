"""A float student, quantised arms of it, and all that measures them: small enough for unit tests."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tiny_run import write_config

from kdfast.config import Config, QuantConfig, load_config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.distributed.ranks import Ranks
from kdfast.errors import ConfigError
from kdfast.pretrained import load_causal_lm
from kdfast.qat import apply_qat_to_model, convert_qat
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.qat.measure import Arm
from kdfast.recipes.train.step import Runner, StudentLoss


@dataclass
class Setting:
    """A run at its end."""

    config: Config
    dataset: KDDataset
    reference: Any
    runner: Runner
    display: Display

    def given(self, **changes: Any) -> dict[str, Any]:
        """The arguments of `compare_arms` beside the arms and the reference."""
        whole = {
            "runner": self.runner,
            "dataset": self.dataset,
            "config": self.config,
            "display": self.display,
            "step": 8,
        }
        return whole | changes

    @property
    def shown(self) -> str:
        """What was printed."""
        file: Any = self.display.console.file
        return str(file.getvalue())


def setting(folder: Path, **changes: Any) -> Setting:
    """A float student with weights large enough that rounding them shows, and a run of cross-entropy alone."""
    whole: dict[str, Any] = {
        "kd__kl_weight": 0,
        "kd__ce_truth_weight": 1.0,
        "kd__name_weight": 0.5,
        "train__eval_prompts": 3,
        "train__eval_irrelevance_prompts": 2,
        "train__eval_max_new_tokens": 4,
    }
    config = load_config(write_config(folder, **(whole | changes)))
    assert config.data.validation is not None
    dataset = KDDataset.from_config(config.data, config.data.validation)
    reference: Any = load_causal_lm(folder / "teacher", dtype=torch.float32, error=ConfigError, name="model")
    with torch.no_grad():
        for weight in reference.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
    reference.requires_grad_(False)
    objective = Objective.of(dataset, config.kd)
    student = copy.deepcopy(reference).train()
    runner = Runner(StudentLoss(student, objective), objective, torch.device("cpu"), False, Ranks())
    display = Display(Console(file=io.StringIO(), width=200))
    return Setting(config, dataset, reference, runner, display)


def post_training(reference: Any, quant: QuantConfig) -> Any:
    """The reference quantised without training."""
    return convert_qat(apply_qat_to_model(copy.deepcopy(reference), quant)).model


def arm(name: str, model: Any) -> Arm:
    """An arm that is loaded already."""
    return Arm(name=name, title=name.upper(), load=lambda: model, bytes=1000)
