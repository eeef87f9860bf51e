"""The exit code of a run that is held to shares of right and false calls."""

import io
from pathlib import Path

import pytest
import yaml
from made_run import config
from rich.console import Console

from kdfast.config import load_config
from kdfast.errors import ConfigError
from kdfast.recipes.train.verdict import judge_calls

ROOT = Path(__file__).parents[4]


def judged(folder, limits, valid=0.9, exact=0.7, false=0.1):
    table = {
        "schema_valid": {"fraction": valid},
        "exact_match": {"fraction": exact},
        "false_calls": {"fraction": false},
    }
    screen = io.StringIO()
    prompts = {"train__eval_prompts": 10, "train__eval_irrelevance_prompts": 10}
    made = config(**prompts | {f"train__{name}": value for name, value in limits.items()})
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(made))
    code = judge_calls(load_config(file), {"table": table}, Console(file=screen, width=200))
    return code, screen.getvalue()


def test_without_limits_nothing_fails(tmp_path):
    assert judged(tmp_path, {}, valid=0.0, exact=0.0, false=1.0) == (0, "")


def test_shares_at_their_limits_pass(tmp_path):
    limits = {
        "min_valid_calls_fraction": 0.9,
        "min_exact_calls_fraction": 0.7,
        "max_false_calls_fraction": 0.1,
    }
    assert judged(tmp_path, limits) == (0, "")


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"min_valid_calls_fraction": 0.91}, "90% of the held-out tool prompts got a valid call"),
        ({"min_exact_calls_fraction": 0.8}, "70% of the held-out tool prompts got the right call"),
        ({"max_false_calls_fraction": 0.05}, "10% of the held-out prompts that no tool fits got a call"),
    ],
)
def test_a_share_beyond_its_limit_fails_the_run(tmp_path, limits, told):
    code, screen = judged(tmp_path, limits)
    assert code == 3
    assert told in screen
    assert f"train.{next(iter(limits))}" in screen


def test_every_failure_is_told(tmp_path):
    limits = {"min_valid_calls_fraction": 1.0, "max_false_calls_fraction": 0.0}
    code, screen = judged(tmp_path, limits)
    assert code == 3
    assert screen.count("failed:") == 2


def test_a_run_without_an_evaluation_is_not_judged(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config(train__min_valid_calls_fraction=1.0)))
    assert judge_calls(load_config(file), None, Console(file=io.StringIO())) == 0


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("min_exact_calls_fraction", 0.5, "eval_prompts"),
        ("max_false_calls_fraction", 0.1, "eval_irrelevance_prompts"),
    ],
)
def test_a_limit_of_what_is_not_measured_is_refused(tmp_path, name, value, needed):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config(**{f"train__{name}": value, f"train__{needed}": 0})))
    with pytest.raises(ConfigError, match=rf"train\.{name}: .*unless train\.{needed} is above 0"):
        load_config(file)


def test_the_quickstart_is_held_to_its_limits():
    """What README says of it; and that the prompts it is held to chose nothing."""
    student, teacher = (
        load_config(ROOT / "configs" / f"{name}.yaml") for name in ("quickstart", "quickstart_teacher")
    )
    limits = student.train
    assert (limits.min_valid_calls_fraction, limits.min_exact_calls_fraction) == (0.90, 0.65)
    assert limits.max_false_calls_fraction == 0.12
    assert (limits.eval_prompts, limits.eval_irrelevance_prompts) == (480, 120)
    assert str(student.data.validation).endswith("data/test.jsonl")
    assert str(teacher.data.validation).endswith("data/validation.jsonl")
    assert (teacher.arch.n_layers, student.arch.layers) == (8, 4)
    for key in ("tokenizer", "template", "show_tools", "shapes"):
        assert getattr(student.data, key) == getattr(teacher.data, key), key
    assert not student.data.show_tools
