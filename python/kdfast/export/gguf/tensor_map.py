"""The names of a student's tensors in a GGUF file, and the order of their rows there."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from kdfast.errors import ConfigError
from kdfast.export.gguf.families import OTHER_TARGET, StudentShape

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor of Llama 3's frequency factors; no parameter of the model."""

OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
"""Modules outside the layers -> their names in the file. Without `output` llama.cpp takes `token_embd` (tied)."""

IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Modules of a layer -> their names in the file."""

_PARAMETER = re.compile(r"(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)")


def gguf_name(parameter: str, shape: StudentShape) -> str:
    """A parameter's name in the file.

    Raises:
        ConfigError: llama.cpp reads no such tensor of this family.
    """
    found = _PARAMETER.fullmatch(parameter)
    layer, module, kind = found.groups() if found else (None, "", "")
    name = OUTER.get(module) if layer is None else IN_LAYER.get(module)
    unread = (kind == "bias" and module not in shape.family.biases) or (
        module in ("self_attn.q_norm", "self_attn.k_norm") and not shape.family.head_norms
    )
    if name is None or unread:
        raise ConfigError(
            f"gguf: llama.cpp reads no such tensor of a {shape.family.arch}; {OTHER_TARGET}: {parameter}"
        )
    return f"{name}.{kind}" if layer is None else f"blk.{layer}.{name}.{kind}"


def row_order(parameter: str, shape: StudentShape) -> Tensor | None:
    """[out] int64: which of the model's rows stands at each place of the file; None = the same order.

    transformers turns rows i and i + half of a head together, llama.cpp's `llama` rows 2i and 2i + 1. So the rows of
    a head of 4 are written in the order 0, 2, 1, 3.

    Args:
        parameter: the parameter's name.
        shape: the student's figures.
    """
    if not shape.family.permuted:
        return None
    if ".self_attn.q_proj." in parameter:
        heads = shape.heads
    elif ".self_attn.k_proj." in parameter:
        heads = shape.key_heads
    else:
        return None
    rows = torch.arange(heads * shape.head_width).view(heads, 2, shape.head_width // 2)
    return rows.transpose(1, 2).reshape(-1)
