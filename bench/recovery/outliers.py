"""Outlier columns without a change of what the model computes, as large models have them and small ones do not.

Blocks of Q4_0 share a scale along a row. Where some columns are large and their inputs small in turn, the small columns
of a block lose their digits. A student of a million weights, fresh from random weights, has no such columns, and
Q4_0 costs it next to nothing; a real student's cost has to be put in to be mended.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def spread_columns(model: Any, spread: float, seed: int = 0) -> None:
    """Multiplies columns of every layer by exp(spread * normal), and divides what feeds them by the same, in place.

    The output layer and the embedding are left as they are. The model computes the same, up to rounding.

    Args:
        model: a Llama of Hugging Face.
        spread: standard deviation of the factors' logarithm; 0 = no change.
        seed: of the factors.
    """
    draw = torch.Generator().manual_seed(seed)

    def factors(count: int) -> Tensor:
        return torch.exp(spread * torch.randn(count, generator=draw))

    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for norm, users in (
            (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
        ):
            scale = factors(len(norm.weight))
            norm.weight.div_(scale)
            for linear in users:
                linear.weight.mul_(scale)
        scale = factors(mlp.up_proj.out_features)
        mlp.up_proj.weight.div_(scale[:, None])
        mlp.down_proj.weight.mul_(scale)
        scale = factors(attention.v_proj.out_features)
        attention.v_proj.weight.div_(scale[:, None])
        heads = scale.view(-1, attention.head_dim)
        attention.o_proj.weight.mul_(
            heads.repeat_interleave(attention.o_proj.in_features // len(scale), 0).flatten()
        )
