"""How many codes of a quantised student the learning rate of the phase can change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdfast.config import QuantConfig
from kdfast.quantized import plan_model, quantize
from kdfast.recipes.train.schedule import learning_rate_under_qat

_ROWS = 64
"""Rows of each tensor that are looked at, evenly spread."""
_MOST_STEPS = 2000
"""Steps whose rates are added up one by one; of more, every n-th stands for n."""


@dataclass(frozen=True, kw_only=True)
class CodeReach:
    """What a phase can do to the codes.

    Attributes:
        distance: how far it can move a weight: AdamW moves it by about the learning rate a step.
        share: codes whose weight is no further than that from the next code.
        looked: codes that were looked at.
    """

    distance: float
    share: float
    looked: int


def code_reach(student: nn.Module, quant: QuantConfig, first: int, steps: int) -> CodeReach:
    """Counts the codes that could change, as if every step moved each weight the same way.

    Args:
        student: the float student.
        quant: the config's section.
        first: the first step (0-based) under quantisation.
        steps: steps of the run.

    Raises:
        ConfigError: the format does not divide a tensor.
        QATError: the student has no layer to quantise.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[127.0, 3.4]]))  # 0.5 and 0.1 from the next code
        >>> found = code_reach(layer, QuantConfig(learning_rate=0.2, warmup_steps=0), 0, 1)
        >>> found.distance, found.share, found.looked
        (0.2, 0.5, 2)
    """
    stride = max((steps - first) // _MOST_STEPS, 1)
    rates = [learning_rate_under_qat(step, first, steps, quant) for step in range(first, steps, stride)]
    distance = stride * sum(rates)
    weights = dict(student.named_parameters())
    near = looked = 0
    for tensor in plan_model(student, quant).tensors:
        room = _room(weights[tensor.name].detach(), tensor.format)
        near += int((room <= distance).sum())
        looked += room.numel()
    return CodeReach(distance=distance, share=near / max(looked, 1), looked=looked)


def _room(weight: Tensor, name: str) -> Tensor:
    """[n,in] how far weights are from the border to the next code, in some rows; inf where the scale is 0."""
    rows = torch.linspace(0, len(weight) - 1, min(len(weight), _ROWS)).long()
    some = weight[rows].float()
    made = quantize(some, name)
    scale = made.scales.float().abs().repeat_interleave(made.block, 1)  # [n,in] the scale of each weight
    room = scale / 2 - (some - made.dequantize()).abs()
    return room.masked_fill(scale == 0, torch.inf)
