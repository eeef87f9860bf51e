"""Estimates the memory and disk of a run from its config alone; the student is built on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from kdfast.config import Config
from kdfast.errors import ConfigError
from kdfast.pretrained import DTYPES, load_model_config
from kdfast.student.build import chosen_layers, scratch_config
from kdfast.student.vocabulary import read_pieces

FP32_BYTES = 4


def student_config(config: Config) -> PretrainedConfig:
    """The Hugging Face config of the student that a run would train; no weight is read.

    Raises:
        ConfigError: its directory, or the tokenizer that decides its vocabulary, does not exist.
    """
    arch = config.arch
    if arch.from_scratch:
        vocab_size = arch.vocab_size or len(read_pieces(Path(config.data.tokenizer)))
        return scratch_config(arch, vocab_size=vocab_size, max_position_embeddings=config.data.shapes[-1])
    source = config.teacher.model if arch.init == "teacher" and config.teacher.model else Path(arch.init)
    loaded = load_model_config(Path(source), error=ConfigError, name="arch.init")
    kept = chosen_layers(arch.layers, loaded.num_hidden_layers)
    loaded.num_hidden_layers = len(kept)
    if getattr(loaded, "layer_types", None):
        loaded.layer_types = [loaded.layer_types[layer] for layer in kept]
    if arch.tie_word_embeddings is not None:
        loaded.tie_word_embeddings = arch.tie_word_embeddings
    return loaded


def activation_bytes(model: PretrainedConfig, *, rows: int, length: int, bf16: bool = False) -> int:
    """Bytes that autograd keeps of one forward pass up to the last hidden states, without recomputation.

    The sum of the saved tensors of a Llama block with fused attention: two norms (4 d in fp32), the inputs of the
    matrix products (2 d + q), queries, keys and values (q + 2 kv), 4 times the feed-forward's width. The logits of the
    supervised rows are not in it: 8 bytes per row and vocabulary entry in fp32.

    Args:
        model: a Llama family config.
        rows: rows of one micro-batch.
        length: the padded length.
        bf16: whether bf16 autocast is on; then all but the norms takes 2 bytes.
    """
    d = model.hidden_size
    head_dim = getattr(model, "head_dim", None) or d // model.num_attention_heads
    queries, keys = model.num_attention_heads * head_dim, model.num_key_value_heads * head_dim
    norms = 4 * d + 2
    products = 2 * d + 2 * queries + 2 * keys + 4 * model.intermediate_size + model.num_attention_heads
    per_layer = FP32_BYTES * norms + (2 if bf16 else FP32_BYTES) * products
    return int(rows * length * (model.num_hidden_layers * per_layer + FP32_BYTES * 2 * d))


def meta_student(config: Config) -> nn.Module:
    """The student that a run would train, on torch's meta device: names and shapes of its tensors, and no numbers.

    Args:
        config: a whole config.

    Raises:
        ConfigError: the directory of the student does not exist.
    """
    return _on_meta(student_config(config))


def _on_meta(config: PretrainedConfig) -> nn.Module:
    """The model without memory."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model


def estimate(config: Config) -> dict[str, int]:
    """Numbers of parameters and bytes of a run, by name; names that end in `_bytes` are bytes.

    Weights, gradients and AdamW's two averages are fp32. A checkpoint holds the weights and the averages.
    `activations_bytes` is one micro-batch at the longest shape. `live_teacher_bytes` and `self_teacher_bytes` are the
    weights of the models that run beside the student; such a model keeps no activations.

    Args:
        config: a whole config.

    Raises:
        ConfigError: the directory of the student or of the live teacher does not exist.

    Example:
        >>> from kdfast.config import config_from_dict
        >>> tiny = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64, "vocab_size": 300}
        >>> config = config_from_dict(
        ...     {"arch": tiny, "data": {"train": "a.jsonl", "tokenizer": "a"}, "io": {"run_dir": "b"}}
        ... )
        >>> estimate(config)["parameters"], estimate(config)["weights_bytes"]
        (39840, 159360)
    """
    model = student_config(config)
    student = meta_student(config)
    if config.arch.freeze_embeddings:
        embeddings: Any = student
        embeddings.get_input_embeddings().requires_grad_(False)
    parameters = sum(p.numel() for p in student.parameters())
    trainable = sum(p.numel() for p in student.parameters() if p.requires_grad)
    figures = {
        "parameters": parameters,
        "trainable_parameters": trainable,
        "weights_bytes": FP32_BYTES * parameters,
        "gradients_bytes": FP32_BYTES * trainable,
        "optimizer_bytes": 2 * FP32_BYTES * trainable,
        "checkpoint_bytes": FP32_BYTES * (parameters + 2 * trainable),
        "activations_bytes": activation_bytes(
            model,
            rows=config.train.micro_batch_size,
            length=config.data.shapes[-1],
            bf16=config.train.dtype == "bf16",
        ),
    }
    teacher = config.teacher
    if teacher.live and teacher.model is not None:
        live = _on_meta(load_model_config(teacher.model, error=ConfigError, name="teacher.model"))
        size = DTYPES[teacher.dtype].itemsize
        figures["live_teacher_bytes"] = size * sum(p.numel() for p in live.parameters())
    if config.quant.enabled and config.quant.self_weight:
        figures["self_teacher_bytes"] = FP32_BYTES * parameters
    if config.teacher.store is not None:
        figures["teacher_store_bytes_per_token"] = 6 * (config.teacher.k + config.teacher.samples) + 4
    return figures
