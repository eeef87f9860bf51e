"""What a resumed run is told: it never trains nothing, or on another schedule, without a word."""

from __future__ import annotations

import pytest

from kdfast.config import Config, config_from_dict
from kdfast.errors import ConfigError
from kdfast.recipes.train.resume import resume_notes


def config(*overrides: str) -> Config:
    given = {
        "arch": {"init": "models/x"},
        "data": {"train": "t.jsonl", "tokenizer": "models/x", "validation": "v.jsonl"},
        "io": {"run_dir": "runs/x"},
        "optimizer": {"learning_rate": 1.0, "warmup_steps": 0, "min_lr_fraction": 0.0},
    }
    return config_from_dict(given, overrides=["train.num_steps=11", *overrides])


def test_the_same_steps_say_nothing() -> None:
    assert resume_notes(config(), config(), 5) == []


def test_other_steps_say_what_becomes_of_the_learning_rate() -> None:
    (note,) = resume_notes(config("train.num_steps=21"), config(), 10)
    assert note.startswith(
        "the learning rate now falls over 21 steps, not over 11: the next step's is 5.00e-01 instead"
    )
    assert "instead of 0.00e+00" in note
    assert "set optimizer.schedule_steps=11" in note


def test_a_schedule_of_its_own_says_nothing() -> None:
    kept = config("train.num_steps=21", "optimizer.schedule_steps=11")
    assert resume_notes(kept, config(), 10) == []
    assert kept.schedule_steps == 11


def test_nothing_to_train_is_said() -> None:
    (note,) = resume_notes(config(), config(), 11)
    assert note.startswith("nothing is left to train: the run is at its last step, 11 of 11")
    (note,) = resume_notes(config("train.stop_after_validations=2"), config(), 6, ended_early=True)
    assert "the last 2 validations brought no lower loss (train.stop_after_validations)" in note


def test_fewer_steps_than_the_run_has_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"train.num_steps: .* is of step 12; set it to at least 12.*, got 11"
    ):
        resume_notes(config(), config(), 12)
