"""Frozen scales, for the last part of int8 training: each weight can settle on a code while its grid stands still."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdfast.errors import QATError
from kdfast.qat.fake_quantize import weight_quantizers
from kdfast.quantized import FORMATS


def freeze_scales(model: nn.Module) -> int:
    """Keeps the scales of all `int8_channel` tensors as they are now; those of blocks go on following their weights.

    Call it before any of them is frozen, and `clamp_weights` after each step from then on.

    Args:
        model: a model after `apply_qat_to_model`.

    Returns:
        how many tensors were frozen.
    """
    count = 0
    for quantizer, weight in weight_quantizers(model).values():
        if not FORMATS[quantizer.format].block and quantizer.scales is None:
            quantizer.freeze(weight)
            count += 1
    return count


@torch.no_grad()
def clamp_weights(model: nn.Module) -> None:
    """Clamps the float weights of tensors with frozen scales to +-127 s, where the grid ends."""
    for quantizer, weight in weight_quantizers(model).values():
        if quantizer.scales is not None:
            limit = quantizer.scales.to(torch.float32) * 127  # [out,1]
            torch.minimum(torch.maximum(weight, -limit), limit, out=weight)


def frozen_scales(model: nn.Module) -> dict[str, Tensor]:
    """The frozen scales by tensor name, for a checkpoint: they cannot be found again from clamped weights."""
    return {
        name: quantizer.scales
        for name, (quantizer, _) in weight_quantizers(model).items()
        if quantizer.scales is not None
    }


def load_frozen_scales(model: nn.Module, scales: Mapping[str, Tensor]) -> None:
    """Restores what `frozen_scales` gave; tensors that are not named follow their weights again.

    Raises:
        QATError: the scales are of another model.
    """
    found = weight_quantizers(model)
    for name, one in scales.items():
        quantizer, weight = found.get(name, (None, None))
        if quantizer is None or weight is None or FORMATS[quantizer.format].block:
            raise QATError(
                f"frozen scales of a tensor that the model does not quantise to int8_channel: {name}"
            )
        if one.dtype != torch.float16 or one.shape != (len(weight), 1):
            raise QATError(
                f"frozen scales must be float16 [{len(weight)}, 1]: {name} {one.dtype} {list(one.shape)}"
            )
    for name, (quantizer, weight) in found.items():
        given = scales.get(name)
        quantizer.scales = None if given is None else given.to(weight.device)
        quantizer.refresh()
