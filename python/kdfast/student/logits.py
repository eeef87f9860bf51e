"""Logits of the student at supervised positions only: no [B,T,V] tensor is ever made."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from kdfast.quantized import effective_weight


def hidden_and_head(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The last hidden states and the output layer's weight, for losses that project rows by themselves.

    Columns after the longest row are cut off. In a causal model no token sees the padding on its right, so the model
    gets no attention mask: that is much faster than a mask with the same effect.

    Args:
        model: a model of a family in `kdfast.pretrained.FAMILIES`.
        input_ids: [B,T] int64, padded on the right.
        attention_mask: [B,T] 1 = token.

    Returns:
        hidden states [B,T',D] with T' <= T, and the weight [V,D] that the output layer multiplies by.

    Raises:
        ValueError: a row is padded on the left or has gaps.
    """
    longest = right_padded_width(attention_mask)
    head: Any = model.lm_head
    return hidden_states(model, input_ids[:, :longest])[0], effective_weight(head)


def right_padded_width(attention_mask: Tensor) -> int:
    """Tokens of the longest row: the columns after them are padding in every row.

    Args:
        attention_mask: [B,T] 1 = token; on the CPU, or this waits for the device.

    Raises:
        ValueError: a row is padded on the left or has gaps.

    Example:
        >>> import torch
        >>> right_padded_width(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]))
        2
    """
    if not bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all()):
        raise ValueError("attention_mask must be padded on the right: a row has a 1 after a 0")
    return max(int(attention_mask.sum(1).max()), 1)


def hidden_states(
    model: PreTrainedModel, input_ids: Tensor, layers: Collection[int] = ()
) -> tuple[Tensor, dict[int, Tensor]]:
    """The last hidden states, and those of chosen layers.

    Args:
        model: of a family in `kdfast.pretrained.FAMILIES`.
        input_ids: [B,T'] int64, padded on the right.
        layers: 0 = the embeddings, i = after block i; -1, and the number of blocks, = after the last norm.

    Returns:
        [B,T',D], and layer -> [B,T',D].

    Raises:
        ValueError: the model has no such layer.
    """
    base: Any = model.base_model
    further = any(layer != -1 for layer in layers)
    output = base(input_ids=input_ids, use_cache=False, output_hidden_states=further)
    found = {-1: output.last_hidden_state}
    if further:
        found |= dict(enumerate(output.hidden_states))
    missing = sorted(set(layers) - found.keys())
    if missing:
        raise ValueError(f"layers must be in -1..{len(found) - 2}: {missing[0]}")
    return found[-1], {layer: found[layer] for layer in layers}


def supervised_logits(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, mask: Tensor
) -> Tensor:
    """The logits at chosen positions.

    Args:
        model: as in `hidden_and_head`.
        input_ids: [B,T] int64, padded on the right.
        attention_mask: [B,T] 1 = token.
        mask: [B,T] bool, the chosen positions; all of them must be tokens.

    Returns:
        [N,V], positions in row-major order.
    """
    hidden, _ = hidden_and_head(model, input_ids, attention_mask)
    head: Any = model.lm_head
    logits: Tensor = head(hidden[mask[:, : hidden.shape[1]]])
    return logits
