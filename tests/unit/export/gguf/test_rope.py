"""Positions: both dialects of config.json, what is refused, and Llama 3's factors against transformers."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from kdfast.errors import ConfigError
from kdfast.export.gguf.rope import Rope, read_rope

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 2048}


def read(**config):
    return read_rope(config, 64, needs_theta=True)


def test_both_dialects():
    new = read(rope_parameters=YARN)
    old = read(
        rope_theta=1e6, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    )
    assert new == old == Rope(kind="yarn", theta=1e6, factor=4.0, original=2048)
    assert read(rope_theta=1e4) == read(rope_theta=1e4, rope_scaling=None) == Rope(kind="default", theta=1e4)


def test_the_base_may_be_left_out_only_where_it_has_one_meaning():
    assert read_rope({}, 64, needs_theta=False).theta == 10000
    with pytest.raises(ConfigError, match=r"rope_theta; save the student again: None$"):
        read()


def test_the_factors_of_llama3_are_transformers_own():
    config = LlamaConfig(hidden_size=128, num_attention_heads=2, rope_parameters=LLAMA3)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 5e5 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    factors = read(rope_parameters=LLAMA3).frequency_factors(64)
    assert factors.shape == (32,)
    assert len(set(factors.tolist())) > 3
    torch.testing.assert_close(plain / torch.from_numpy(factors), scaled.double(), rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (
            {"rope_type": "dynamic", "factor": 2.0},
            "rope type must be one of default, linear, llama3, yarn.*'dynamic'$",
        ),
        ({"rope_type": "longrope"}, "'longrope'$"),
        ({"full_attention": {"rope_type": "default"}}, "one kind of positions for all layers"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5$"),
        ({"rope_type": "linear"}, "factor; save the student again: None$"),
        ({"rope_type": "linear", "factor": True}, "factor; save the student again: True$"),
        (YARN | {"beta_fast": 16}, "yarn with beta_fast 32 only.*: 16$"),
        (YARN | {"beta_slow": 2.0}, "beta_slow 1 only"),
        (YARN | {"attention_factor": 1.0}, "attention_factor 1.13863 only"),
        (YARN | {"mscale": 1.0, "mscale_all_dim": 0.7}, "no mscale"),
        (YARN | {"truncate": False}, "truncate false$"),
        (
            {key: value for key, value in YARN.items() if "original" not in key},
            "original_max_position_embeddings",
        ),
        (LLAMA3 | {"low_freq_factor": 4.0}, "must differ"),
        (LLAMA3 | {"high_freq_factor": None}, "high_freq_factor"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(said, what):
    with pytest.raises(ConfigError, match=what):
        read(rope_parameters={"rope_theta": 1e4} | said)


def test_yarns_own_figures_may_be_written_out():
    said = YARN | {"attention_factor": 1.1386294361119891, "beta_fast": 32, "beta_slow": 1, "truncate": True}
    assert read(rope_parameters=said) == read(rope_parameters=YARN)
