"""A small model that stands in for a large one: the same family, vocabulary and form, random weights, in seconds."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from kdfast.pretrained import quiet_transformers

LAYERS = 2
HEAD_DIM = 32
"""Also a block of the formats with a scale per 32 weights: every row of weights divides by it."""
FEED_FORWARD = 128
MOST_HEADS = 8


def shrink(model: PretrainedConfig) -> PretrainedConfig:
    """The config of the stand-in: few layers, narrow ones; all else as in the model that it stands in for.

    Family, vocabulary, positions, kind of rotary embedding, tied weights, and how many query heads share a key head
    stay (at most 8 do).

    Args:
        model: the config of a model of the Llama family.

    Example:
        >>> from transformers import LlamaConfig
        >>> large = LlamaConfig(num_hidden_layers=36, hidden_size=4096, num_attention_heads=32, num_key_value_heads=8)
        >>> small = shrink(large)
        >>> small.num_hidden_layers, small.hidden_size, small.num_attention_heads, small.num_key_value_heads
        (2, 128, 4, 1)
        >>> small.vocab_size == large.vocab_size
        True
    """
    small = copy.deepcopy(model)
    heads = model.num_attention_heads
    shared = min(heads // (getattr(model, "num_key_value_heads", None) or heads), MOST_HEADS)
    keys = 1 if shared > 1 else 2
    small.num_hidden_layers = min(LAYERS, model.num_hidden_layers)
    small.hidden_size = shared * keys * HEAD_DIM
    small.intermediate_size = FEED_FORWARD
    small.num_key_value_heads = keys
    small.num_attention_heads = shared * keys
    if hasattr(model, "head_dim"):
        small.head_dim = HEAD_DIM
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[: small.num_hidden_layers]
    return small


def write_stand_in(model: PretrainedConfig, directory: Path, *, seed: int = 0) -> int:
    """Writes a stand-in with random weights as a Hugging Face directory, without a tokenizer.

    Args:
        model: the config of the model that it stands in for.
        directory: where to; it is made.
        seed: decides the weights; the global random state does not change.

    Returns:
        the number of its parameters.

    Raises:
        OSError: it cannot be written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        small = AutoModelForCausalLM.from_config(shrink(model), dtype=torch.float32)  # type: ignore[no-untyped-call]
    with quiet_transformers():
        small.save_pretrained(directory)
    return sum(parameter.numel() for parameter in small.parameters())
