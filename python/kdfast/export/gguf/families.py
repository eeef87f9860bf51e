"""What llama.cpp knows of each family of students, and the figures of a student's config.json that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast.errors import ConfigError
from kdfast.export.gguf.rope import Rope, read_rope
from kdfast.files import read_document
from kdfast.model_files import check_model_directory

OTHER_TARGET = "export the student with --target hf"
"""The remedy where llama.cpp cannot run a student as it was trained."""

_NO_ROPE_STEP = 4
"""llama.cpp gives every 4th layer of a SmolLM3 no position, whatever the file says."""

_MISTRAL_WINDOW = 4096
"""A Mistral's window where config.json has no such key; null = it has none."""


@dataclass(frozen=True)
class Family:
    """A model type of transformers, as llama.cpp runs it.

    Attributes:
        arch: llama.cpp's name of it.
        permuted: whether llama.cpp turns neighbouring rows of a query or key head together; transformers turns row i
            with row i + half. Then the rows are written in another order.
        biases: the layers whose biases llama.cpp reads.
        head_norms: whether queries and keys are normalised.
        scaled_tables: whether it reads `rope_freqs.weight`.
    """

    arch: str
    permuted: bool
    biases: frozenset[str] = frozenset()
    head_norms: bool = False
    scaled_tables: bool = False


_ATTENTION = frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
_ALL_BIASES = _ATTENTION | {"self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}

FAMILIES: dict[str, Family] = {
    "llama": Family("llama", True, _ALL_BIASES, scaled_tables=True),
    "mistral": Family("llama", True, scaled_tables=True),
    "qwen2": Family("qwen2", False, _ATTENTION),
    "qwen3": Family("qwen3", False, head_norms=True),
    "smollm3": Family("smollm3", True),
}
"""Model type in config.json -> what llama.cpp does with it."""


@dataclass(frozen=True, kw_only=True)
class StudentShape:
    """The figures of a student.

    Attributes:
        family: its family.
        layers: hidden layers.
        width: size of a hidden state.
        inner: size of a feed-forward layer.
        heads: query heads.
        key_heads: key and value heads.
        head_width: size of a head.
        context: the most tokens that it was made for.
        epsilon: the norms' epsilon.
        rope: its positions.
    """

    family: Family
    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_width: int
    context: int
    epsilon: float
    rope: Rope


def read_config(directory: Path) -> dict[str, Any]:
    """The student's config.json.

    Raises:
        ConfigError: there is none, or it is no JSON object.
    """
    check_model_directory(directory, error=ConfigError, name="gguf")
    return read_document(directory / "config.json", name="config", remedy="save the student again")


def read_shape(directory: Path) -> StudentShape:
    """The figures of the student in a directory.

    Raises:
        ConfigError: llama.cpp cannot run it as it was trained, or a figure is missing; says which.
    """
    config = read_config(directory)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ConfigError(
            f"gguf: model type must be one of {', '.join(FAMILIES)}; {OTHER_TARGET}: {model_type!r}"
        )
    family = FAMILIES[model_type]
    width, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    head_width = _head_width(config, model_type, width, heads)
    _check_layers(config, model_type)
    _check_biases(config, model_type)
    _check_window(config, model_type)
    context = _size(config, "max_position_embeddings")
    window = config.get("sliding_window", _MISTRAL_WINDOW)
    if model_type == "mistral" and isinstance(window, int) and window > 0:
        # Up to here the window covers every token, so it changes nothing.
        context = min(context, window)
    key_heads = config.get("num_key_value_heads")
    if key_heads is None and ("num_key_value_heads" in config or model_type == "llama"):
        key_heads = heads
    shape = StudentShape(
        family=family,
        layers=_size(config, "num_hidden_layers"),
        width=width,
        inner=_size(config, "intermediate_size"),
        heads=heads,
        key_heads=_size({**config, "num_key_value_heads": key_heads}, "num_key_value_heads"),
        head_width=head_width,
        context=context,
        epsilon=_positive(config, "rms_norm_eps"),
        rope=read_rope(config, head_width, needs_theta=model_type != "llama"),
    )
    if shape.rope.kind == "llama3" and not family.scaled_tables:
        raise ConfigError(
            f"gguf: llama.cpp reads rope type llama3 of no {model_type}; {OTHER_TARGET}: llama3"
        )
    return shape


def _positive(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise ConfigError(
            f"gguf: config.json must hold a number above 0 as {key}; save the student again: {value!r}"
        )
    return float(value)


def _size(config: Mapping[str, Any], key: str) -> int:
    value = _positive(config, key)
    if value != int(value):
        raise ConfigError(
            f"gguf: config.json must hold a whole number as {key}; save the student again: {value!r}"
        )
    return int(value)


def _head_width(config: Mapping[str, Any], model_type: str, width: int, heads: int) -> int:
    # Qwen3's default is 128, not width / heads.
    said = config.get("head_dim") is not None or model_type == "qwen3"
    found = _size(config, "head_dim") if said else width // heads
    if found % 2:
        raise ConfigError(f"gguf: llama.cpp needs heads of an even size; {OTHER_TARGET}: {found}")
    return found


def _check_layers(config: Mapping[str, Any], model_type: str) -> None:
    act = config.get("hidden_act", "silu")
    if act not in ("silu", "swish"):
        raise ConfigError(
            f"gguf: llama.cpp runs a {model_type} with the activation silu only; {OTHER_TARGET}: {act!r}"
        )
    if model_type != "smollm3":
        return
    layers = _size(config, "num_hidden_layers")
    step = config.get("no_rope_layer_interval", _NO_ROPE_STEP)
    given = config.get("no_rope_layers")
    found = [int((layer + 1) % step != 0) for layer in range(layers)] if given is None else list(given)
    if found != [int((layer + 1) % _NO_ROPE_STEP != 0) for layer in range(layers)]:
        raise ConfigError(
            f"gguf: llama.cpp gives every {_NO_ROPE_STEP}th layer of a smollm3 no positions, this student has others "
            f"(cut layers?); {OTHER_TARGET}: no_rope_layers {found}"
        )


def _check_biases(config: Mapping[str, Any], model_type: str) -> None:
    """Of these two transformers reads the keys, and llama.cpp no such tensors; a Qwen2 has its biases without a key."""
    for key in ("attention_bias", "mlp_bias") if model_type in ("qwen3", "smollm3") else ():
        if config.get(key):
            raise ConfigError(
                f"gguf: llama.cpp reads no such biases of a {model_type}; {OTHER_TARGET}: {key} is true"
            )


def _check_window(config: Mapping[str, Any], model_type: str) -> None:
    """Qwen's and SmolLM3's window is for some layers only, and llama.cpp has none for them."""
    kinds = config.get("layer_types")
    in_use = config.get("use_sliding_window") and config.get("sliding_window") is not None
    if isinstance(kinds, list):
        in_use = "sliding_attention" in kinds
    if model_type != "mistral" and in_use:
        raise ConfigError(
            f"gguf: llama.cpp runs a {model_type} without a sliding window, this student has one; {OTHER_TARGET}: "
            f"sliding_window {config.get('sliding_window')}"
        )
