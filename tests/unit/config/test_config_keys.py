"""Keys that depend on each other, and keys whose value is a JSON object."""

import pytest
import yaml

from kdfast.config import config_from_dict, load_config
from kdfast.errors import ConfigError

SMALLEST = {
    "arch": {"d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 128},
    "data": {"train": "train.jsonl", "tokenizer": "tokenizer.json"},
    "io": {"run_dir": "runs/a"},
}


@pytest.mark.parametrize("value", ["{a: 1, b: [null, {c: 0.5}]}", "{}", "null", '{"enable_thinking": false}'])
def test_json_values_survive_saving(value, tmp_path):
    config = config_from_dict(SMALLEST, [f"data.template_kwargs={value}"])
    assert config.data.template_kwargs == yaml.safe_load(value)
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("value", ["3", "[1]", "{a: .nan}", "{a: 2026-01-02}", "{1: a}", "text"])
def test_what_json_cannot_write_is_refused(value):
    with pytest.raises(
        ConfigError, match=r"^data.template_kwargs: must be a mapping of names to JSON values or null, got"
    ):
        config_from_dict(SMALLEST, [f"data.template_kwargs={value}"])


def test_a_schedule_of_its_own():
    assert config_from_dict(SMALLEST, ["train.num_steps=50"]).schedule_steps == 50
    assert (
        config_from_dict(SMALLEST, ["train.num_steps=50", "optimizer.schedule_steps=30"]).schedule_steps == 30
    )
    with pytest.raises(
        ConfigError, match=r"optimizer.warmup_steps: must be at most optimizer.schedule_steps \(10\), got 20"
    ):
        config_from_dict(SMALLEST, ["optimizer.schedule_steps=10"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("io.final=best", "io.final: must be 'last' unless data.validation is set"),
        ("train.stop_after_validations=2", "train.stop_after_validations: must be 0 unless data.validation"),
    ],
)
def test_what_needs_validation(override, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(SMALLEST, [override])
    assert config_from_dict(SMALLEST, [override, "data.validation=held_out.jsonl"])


@pytest.mark.parametrize(
    "override",
    [
        "train.threads=1000000",
        "data.threads=1000000",
        "data.shapes=[3000000000]",
        "optimizer.learning_rate=1e300",
        "train.micro_batch_size=1000000000000000000",
    ],
)
def test_numbers_that_would_break_the_machine_are_refused(override):
    key = override.split("=")[0]
    with pytest.raises(ConfigError, match=rf"^{key}: must be .* <= "):
        config_from_dict(SMALLEST, [override])


def test_later_override_wins():
    assert config_from_dict(SMALLEST, ["train.seed=1", "train.seed=2"]).train.seed == 2


def test_all_weights_zero_is_refused():
    weights = ["kd.kl_weight=0", "kd.ce_teacher_weight=0", "kd.ce_truth_weight=0"]
    with pytest.raises(
        ConfigError, match=r"^kd.kl_weight: must be above 0 unless ce_teacher_weight, .*, got 0.0$"
    ):
        config_from_dict(SMALLEST, weights)
