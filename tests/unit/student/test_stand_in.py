"""The stand-in: small, of the same family and form, and a model that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from kdfast.student.stand_in import shrink, write_stand_in

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")


def large(family: str, **options: object) -> object:
    settings = {
        "vocab_size": 300,
        "hidden_size": 96,
        "intermediate_size": 200,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 777,
        "rms_norm_eps": 1e-4,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    return AutoConfig.for_model(family, **settings | options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_of_the_same_family_and_runs(family: str, tied: bool, tmp_path: Path) -> None:
    size = write_stand_in(large(family, tie_word_embeddings=tied), tmp_path)
    small = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    config = small.config
    assert (config.model_type, config.vocab_size, config.max_position_embeddings) == (family, 300, 777)
    assert (config.num_hidden_layers, config.rms_norm_eps, config.tie_word_embeddings) == (2, 1e-4, tied)
    assert config.num_attention_heads // config.num_key_value_heads == 3
    assert size == sum(parameter.numel() for parameter in small.parameters())
    shared = small.get_input_embeddings().weight.data_ptr() == small.lm_head.weight.data_ptr()
    assert shared == tied
    logits = small(torch.arange(9)[None]).logits
    assert logits.shape == (1, 9, 300)
    assert bool(torch.isfinite(logits).all())
    widths = {weight.shape[-1] for name, weight in small.named_parameters() if weight.ndim == 2}
    assert all(width % 32 == 0 for width in widths)  # a scale for 32 weights divides every row


@pytest.mark.parametrize(("heads", "keys", "shared"), [(32, 8, 4), (9, 3, 3), (32, 32, 1), (64, 1, 8)])
def test_query_heads_share_key_heads_as_before(heads: int, keys: int, shared: int) -> None:
    small = shrink(large("llama", num_attention_heads=heads, num_key_value_heads=keys, hidden_size=heads * 8))
    assert small.num_attention_heads // small.num_key_value_heads == shared
    assert small.hidden_size == small.num_attention_heads * small.head_dim


def test_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    write_stand_in(large("llama"), tmp_path / "a", seed=1)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    write_stand_in(large("llama"), tmp_path / "b", seed=1)
    write_stand_in(large("llama"), tmp_path / "c", seed=2)
    contents = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
