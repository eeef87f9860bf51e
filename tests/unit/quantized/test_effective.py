"""The weight that a layer multiplies by: its parameter, or what quantisation makes of it."""

import pytest
import torch
from torch import nn

from kdfast.config.quant import QuantConfig
from kdfast.qat import apply_qat_to_model, remove_qat
from kdfast.quantized import effective_weight, q4_0


@pytest.mark.parametrize("layer", [nn.Linear(32, 4), nn.Embedding(4, 32)])
def test_it_is_what_the_layer_s_forward_uses(layer):
    assert effective_weight(layer) is layer.weight
    apply_qat_to_model(layer, QuantConfig(format="q4_0", embeddings="same"))
    weight = effective_weight(layer)
    assert torch.equal(weight, q4_0(layer.weight.detach()).dequantize())
    (3 * weight).sum().backward()
    assert bool((layer.weight.grad == 3).all())
    assert effective_weight(remove_qat(layer)) is layer.weight


def test_a_module_without_a_weight_is_an_error():
    with pytest.raises(AttributeError, match="weight"):
        effective_weight(nn.ReLU())
