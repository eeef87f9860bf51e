"""Makes the student: from random weights, from a model directory, or from the teacher's layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from kdfast.config.arch import ArchConfig
from kdfast.errors import CheckpointError, ConfigError
from kdfast.pretrained import load_causal_lm, load_model_config


def scratch_config(
    arch: ArchConfig, *, vocab_size: int | None = None, max_position_embeddings: int | None = None
) -> LlamaConfig:
    """The Hugging Face config of a student that starts from random weights.

    Args:
        arch: the config's section, with `init: scratch`.
        vocab_size: the tokenizer's vocabulary; used if `arch` gives none.
        max_position_embeddings: the longest shape; used if `arch` gives none.

    Raises:
        ConfigError: neither `arch` nor the argument gives a size.

    Example:
        >>> arch = ArchConfig(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=128)
        >>> scratch_config(arch, vocab_size=300, max_position_embeddings=512).head_dim
        16
    """
    vocab_size = arch.vocab_size or vocab_size
    longest = arch.max_position_embeddings or max_position_embeddings
    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": arch.d_model,
        "intermediate_size": arch.d_ff,
        "num_hidden_layers": arch.n_layers,
        "num_attention_heads": arch.n_heads,
        "max_position_embeddings": longest,
    }
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(known) < len(sizes):
        raise ConfigError(
            f"arch: these must be known for a student from scratch: {sorted({*sizes} - {*known})}"
        )
    heads = known["num_attention_heads"]
    return LlamaConfig(
        **known,
        num_key_value_heads=arch.n_kv_heads or heads,
        head_dim=arch.head_dim or known["hidden_size"] // heads,
        rms_norm_eps=arch.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": arch.rope_theta},
        tie_word_embeddings=bool(arch.tie_word_embeddings),
        bos_token_id=None,
        eos_token_id=None,
    )


def chosen_layers(layers: int | tuple[int, ...] | None, available: int) -> list[int]:
    """Which layers of a model to keep.

    Args:
        layers: None = all; a number = that many, evenly spread, with the first and the last; a tuple = these layers.
        available: number of layers in the model.

    Raises:
        ConfigError: `layers` asks for more layers than the model has, or for one that does not exist.

    Example:
        >>> chosen_layers(4, 30), chosen_layers((0, 5), 30), chosen_layers(1, 30)
        ([0, 10, 19, 29], [0, 5], [0])
    """
    if layers is None:
        return list(range(available))
    if isinstance(layers, int):
        if not 1 <= layers <= available:
            raise ConfigError(
                f"arch.layers: the model has {available} layers, choose 1 to that many: {layers}"
            )
        return [round(i * (available - 1) / max(layers - 1, 1)) for i in range(layers)]
    if not layers or any(not 0 <= layer < available for layer in layers):
        raise ConfigError(f"arch.layers: the model has layers 0 to {available - 1}: {list(layers)}")
    return list(layers)


def keep_layers(model: PreTrainedModel, keep: list[int]) -> None:
    """Removes all but some layers of a model, from its weights and its config, in place."""
    base: Any = model.base_model
    base.layers = nn.ModuleList(base.layers[layer] for layer in keep)
    for index, layer in enumerate(base.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    model.config.num_hidden_layers = len(keep)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[layer] for layer in keep]


def _retie(model: PreTrainedModel, tie: bool | None) -> None:
    tied = bool(model.config.tie_word_embeddings)
    if tie is None or tie == tied:
        return
    if tie:
        raise ConfigError(
            "arch.tie_word_embeddings: true would throw away the loaded model's output layer; leave it null"
        )
    model.config.tie_word_embeddings = False
    copied: Any = model.get_input_embeddings().weight
    head: Any = model.lm_head
    head.weight = nn.Parameter(copied.detach().clone())


def build_student(
    arch: ArchConfig,
    *,
    teacher_dir: Path | None = None,
    vocab_size: int | None = None,
    max_position_embeddings: int | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """The student in fp32 on the CPU, in training mode.

    Args:
        arch: the config's section.
        teacher_dir: the teacher's Hugging Face directory, for `init: teacher`.
        vocab_size: see `scratch_config`.
        max_position_embeddings: see `scratch_config`.
        seed: decides random weights; the global random state does not change.

    Raises:
        ConfigError: a directory is missing or damaged, a layer does not exist, or a size is not known.

    Example:
        >>> arch = ArchConfig(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=64, vocab_size=300)
        >>> student = build_student(arch, max_position_embeddings=64)
        >>> sum(p.numel() for p in student.parameters())
        37792
    """
    if arch.from_scratch:
        config = scratch_config(arch, vocab_size=vocab_size, max_position_embeddings=max_position_embeddings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: PreTrainedModel = LlamaForCausalLM(config)
        model.train()
        return model
    if arch.init == "teacher" and teacher_dir is None:
        raise ConfigError("arch.init: 'teacher' needs the teacher's model directory")
    directory = teacher_dir if arch.init == "teacher" and teacher_dir is not None else Path(arch.init)
    loaded = load_model_config(directory, error=ConfigError, name="arch.init")
    layers = chosen_layers(arch.layers, loaded.num_hidden_layers)
    model = load_causal_lm(directory, dtype=torch.float32, error=ConfigError, name="arch.init")
    keep_layers(model, layers)
    _retie(model, arch.tie_word_embeddings)
    return _ready(model, freeze_embeddings=arch.freeze_embeddings)


def load_student(directory: Path, *, freeze_embeddings: bool = False) -> PreTrainedModel:
    """The student of a checkpoint, in fp32 on the CPU, in training mode.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
    """
    model = load_causal_lm(directory, dtype=torch.float32, error=CheckpointError, name="checkpoint")
    return _ready(model, freeze_embeddings=freeze_embeddings)


def _ready(model: PreTrainedModel, *, freeze_embeddings: bool) -> PreTrainedModel:
    if freeze_embeddings:
        embeddings: nn.Module = model.get_input_embeddings()
        embeddings.requires_grad_(False)
    model.train(True)
    return model
