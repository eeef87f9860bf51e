"""A phase under quantisation of a small model, as a run begins it."""

from __future__ import annotations

from typing import Any

from quantized_models import batch, tiny_model

from kdfast.config import Config, config_from_dict
from kdfast.distributed.ranks import Ranks
from kdfast.qat import Action
from kdfast.recipes.train.qat.phase import QatPhase


def config(*overrides: str) -> Config:
    """A config with a phase of ten steps, from step 10 of 20."""
    quant = {"enabled": True, "min_steps": 1, "learning_rate": 1.0, "warmup_steps": 2, "min_cosine": 0.5}
    sections: dict[str, dict[str, Any]] = {
        "arch": {"init": "model"},
        "data": {"train": "t.jsonl", "tokenizer": "model"},
        "train": {"num_steps": 20},
        "optimizer": {"warmup_steps": 0},
        "quant": quant,
        "io": {"run_dir": "run"},
    }
    return config_from_dict(sections, list(overrides))


def begun(*overrides: str) -> QatPhase:
    """The phase at step 10, with its first check made."""
    phase = QatPhase.begin(config(*overrides), tiny_model(), batch(), Ranks(), 10)
    assert phase.check(10).action is Action.GO_ON
    return phase
