"""What a run says at its start of gates that have no prompts."""

from __future__ import annotations

from typing import Any

import pytest

from kdfast.config import Config, config_from_dict
from kdfast.recipes.train.gates import gates_without_prompts

QUALITY = ["f1", "false_call_rate", "missed_call_rate"]
NO_SPEED = {"every_validations": 0}


def config(enabled: list[str] | None = None, speed: dict[str, int] | None = None, **changes: Any) -> Config:
    """A config of a run with held-out records; the other changes are keys of `train`, or `baseline`."""
    gates = {} if enabled is None else {"enabled": enabled}
    if "baseline" in changes:
        gates["baseline"] = changes.pop("baseline")
    return config_from_dict(
        {
            "arch": {"init": "models/small"},
            "data": {"train": "t.jsonl", "tokenizer": "models/small", "validation": "v.jsonl"},
            "io": {"run_dir": "runs/first"},
            "speed": speed or {},
            "gates": gates,
            "train": changes,
        }
    )


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (
            config(eval_irrelevance_prompts=8),
            "gates: train.eval_prompts is 0, so f1 and missed_call_rate will be skipped as not measured; "
            "set train.eval_prompts, or leave f1 and missed_call_rate out of gates.enabled",
        ),
        (
            config(eval_prompts=8),
            "gates: train.eval_irrelevance_prompts is 0, so false_call_rate will be skipped as not measured; "
            "set train.eval_irrelevance_prompts, or leave false_call_rate out of gates.enabled",
        ),
        (
            config(speed=NO_SPEED),
            "gates: train.eval_prompts is 0 and train.eval_irrelevance_prompts is 0, so f1, false_call_rate and "
            "missed_call_rate will be skipped as not measured; set train.eval_prompts and "
            "train.eval_irrelevance_prompts, or leave f1, false_call_rate and missed_call_rate out of gates.enabled",
        ),
        (
            config(["ttft_p50", "missed_call_rate"], NO_SPEED),
            "gates: train.eval_prompts is 0, so missed_call_rate will be skipped as not measured; "
            "set train.eval_prompts, or leave missed_call_rate out of gates.enabled",
        ),
        # No evaluation at all: the gates read the last speed report, which has a few answers.
        (
            config(["f1", "ttfa_p95"], {"prompts": 6}),
            "gates: train.eval_prompts is 0, so f1 will only be measured on the prompts of the speed report "
            "(speed.prompts is 6, those that need a call first); set train.eval_prompts, or leave f1 out of "
            "gates.enabled",
        ),
    ],
)
def test_it_names_the_keys_the_gates_and_the_remedy(made: Config, line: str) -> None:
    assert gates_without_prompts(made) == line


@pytest.mark.parametrize(
    "made",
    [
        config(QUALITY, eval_prompts=8, eval_irrelevance_prompts=4),
        config(["ttft_p50", "tps_p95", "ttfa_p95"]),
        config([]),
        config(["f1", "missed_call_rate"], eval_prompts=8),
        config(["false_call_rate"], eval_irrelevance_prompts=4),
        config(QUALITY, baseline="baseline.json"),  # its prompts are answered
    ],
)
def test_it_says_nothing_where_every_gate_has_prompts(made: Config) -> None:
    assert gates_without_prompts(made) == ""


def test_without_held_out_records_no_gate_is_judged_and_nothing_is_said() -> None:
    made = config_from_dict(
        {
            "arch": {"init": "models/small"},
            "data": {"train": "t.jsonl", "tokenizer": "models/small"},
            "io": {"run_dir": "runs/first"},
        }
    )
    assert made.data.validation is None
    assert gates_without_prompts(made) == ""
