"""Families: the figures of config.json, and what llama.cpp does not run as it was trained."""

import json

import pytest
from export_students import FAMILIES, tiny_student_model

from kdfast.errors import ConfigError, DataError
from kdfast.export.gguf.families import FAMILIES as KNOWN
from kdfast.export.gguf.families import read_shape


@pytest.fixture
def student(tmp_path):
    """Writes a family's config.json, with changes."""

    def write(family="llama", **changes):
        tiny_student_model(family).config.save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        document = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in document.items() if value != "absent"}))
        return tmp_path

    return write


@pytest.mark.parametrize("family", FAMILIES)
def test_the_figures_are_the_configs(student, family):
    shape, config = read_shape(student(family)), tiny_student_model(family).config
    assert shape.family is KNOWN[family]
    found = (shape.layers, shape.width, shape.inner, shape.heads, shape.key_heads, shape.context)
    assert found == (config.num_hidden_layers, 64, 96, 4, 2, 256)
    assert shape.epsilon == 1e-5
    assert shape.head_width == (32 if family == "qwen3" else 16)
    assert shape.rope.theta == config.rope_parameters["rope_theta"]


def test_absent_and_null_have_their_meaning(student):
    assert read_shape(student(head_dim=None, num_key_value_heads="absent")).key_heads == 4
    assert read_shape(student("qwen2", num_key_value_heads=None)).key_heads == 4
    assert read_shape(student(head_dim=48)).head_width == 48


@pytest.mark.parametrize(
    ("family", "changes", "what"),
    [
        (
            "llama",
            {"model_type": "gemma"},
            "must be one of llama, mistral, qwen2, qwen3, smollm3.*--target hf: 'gemma'$",
        ),
        ("llama", {"model_type": "absent"}, "None$"),
        ("llama", {"hidden_act": "gelu"}, "silu only.*'gelu'$"),
        ("llama", {"hidden_size": "absent"}, "hidden_size; save the student again: None$"),
        ("llama", {"num_hidden_layers": 2.5}, "whole number as num_hidden_layers.*2.5$"),
        ("llama", {"head_dim": 15}, "even size.*15$"),
        ("llama", {"rms_norm_eps": 0}, "rms_norm_eps"),
        ("qwen2", {"num_key_value_heads": "absent"}, "num_key_value_heads"),
        ("qwen3", {"head_dim": "absent"}, "head_dim"),
        ("qwen3", {"attention_bias": True}, "no such biases of a qwen3.*attention_bias is true$"),
        ("smollm3", {"mlp_bias": True}, "mlp_bias is true$"),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 64, "layer_types": "absent"},
            "sliding_window 64$",
        ),
        (
            "qwen3",
            {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 64},
            "sliding window",
        ),
        ("smollm3", {"no_rope_layers": [1, 1, 0, 1, 1]}, r"every 4th.*cut layers.*\[1, 1, 0, 1, 1\]$"),
        ("smollm3", {"no_rope_layers": "absent", "no_rope_layer_interval": 3}, "every 4th"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "'dynamic'$",
        ),
    ],
)
def test_what_llama_cpp_does_not_run_is_refused(student, family, changes, what):
    with pytest.raises(ConfigError, match=what):
        read_shape(student(family, **changes))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "smollm3"])
def test_llama3s_factors_are_read_of_llamas_only(student, family):
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    with pytest.raises(ConfigError, match=f"llama3 of no {family}"):
        read_shape(student(family, rope_parameters=rope))
    assert read_shape(student("llama", rope_parameters=rope)).rope.kind == "llama3"


def test_keys_that_a_family_has_not_say_nothing(student):
    assert read_shape(student("mistral", attention_bias=True)).layers == 2
    assert read_shape(student("qwen2", attention_bias=True)).layers == 2


def test_biases_that_llama_cpp_reads_are_fine(student):
    assert read_shape(student(attention_bias=True, mlp_bias=True)).layers == 2


@pytest.mark.parametrize(
    ("window", "context"), [(64, 64), (None, 256), (4096, 256), ("absent", 256), (0, 256)]
)
def test_a_mistrals_context_ends_with_its_window(student, window, context):
    assert read_shape(student("mistral", sliding_window=window)).context == context


def test_a_window_that_is_not_in_use_is_fine(student):
    assert read_shape(student("qwen2", use_sliding_window=False, sliding_window=64)).context == 256


def test_no_model_and_a_damaged_config(tmp_path):
    with pytest.raises(ConfigError, match="gguf: no such file or directory"):
        read_shape(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"rms_norm_eps": NaN}')
    with pytest.raises(DataError, match="NaN is not JSON"):
        read_shape(tmp_path)
