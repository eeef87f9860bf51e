"""Positions: what torch turns by against what llama.cpp is told, for every family and kind; and what gives it away."""

import json

import pytest
from export_students import FAMILIES, float_student

from kdfast.errors import ConfigError
from kdfast.export.parity.positions import position_problems
from kdfast.pretrained import load_causal_lm

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 2.0}
KINDS = [(family, kind) for family in FAMILIES for kind in ("default", "linear", "yarn")]


def loaded(directory):
    return load_causal_lm(directory, dtype=None, error=ConfigError, name="model", families=None)


def rewrite(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(("family", "kind"), [*KINDS, ("llama", "llama3"), ("mistral", "llama3")])
def test_torch_turns_by_what_the_file_says(tmp_path, family, kind):
    told = {"default": {"rope_type": "default"}, "linear": LINEAR, "yarn": YARN, "llama3": LLAMA3}[kind]
    student = float_student(tmp_path / "s", family, rope_parameters=told | {"rope_theta": 5e4})
    assert position_problems(loaded(student.directory), student.directory) == []


def test_another_base_or_scaling_is_found(tmp_path):
    student = float_student(tmp_path / "s", rope_parameters=LINEAR | {"rope_theta": 1e4})
    model = loaded(student.directory)
    rewrite(student.directory, rope_parameters=LINEAR | {"rope_theta": 2e4})
    assert "other angles" in position_problems(model, student.directory)[0]
    rewrite(student.directory, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    assert "other angles" in position_problems(model, student.directory)[0]
    yarn = float_student(tmp_path / "y", rope_parameters=YARN | {"rope_theta": 1e4})
    model = loaded(yarn.directory)
    model.model.rotary_emb.attention_scaling = 1.0
    assert "scales attention by 1" in position_problems(model, yarn.directory)[0]


def test_a_config_that_says_two_things_is_refused(tmp_path):
    student = float_student(tmp_path / "s")
    new = json.loads((student.directory / "config.json").read_text())["rope_parameters"]
    rewrite(student.directory, rope_scaling=LLAMA3)
    with pytest.raises(ConfigError, match="says two things of positions"):
        position_problems(loaded(student.directory), student.directory)
    rewrite(student.directory, rope_scaling={"type": "default"})  # the same thing twice
    assert new["rope_type"] == "default"
    position_problems(loaded(student.directory), student.directory)


def test_the_outer_context_counts_as_in_transformers(tmp_path):
    student = float_student(tmp_path / "s", rope_parameters=LLAMA3 | {"rope_theta": 5e4})
    rewrite(student.directory, original_max_position_embeddings=128)
    assert position_problems(loaded(student.directory), student.directory) == []
