"""Logits of the student at supervised positions only: no [B,T,V] tensor is ever made."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


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
        hidden states [B,T',D] with T' <= T, and the weight [V,D].

    Raises:
        ValueError: a row is padded on the left or has gaps.
    """
    if not bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all()):
        raise ValueError("attention_mask must be padded on the right: a row has a 1 after a 0")
    longest = max(int(attention_mask.sum(1).max()), 1)
    base: Any = model.base_model
    head: Any = model.lm_head
    return base(input_ids=input_ids[:, :longest], use_cache=False).last_hidden_state, head.weight


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
