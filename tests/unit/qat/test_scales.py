"""Frozen scales: they stay, weights are clamped to where the grid ends, and a checkpoint restores them."""

import copy

import pytest
import torch
from quantized_models import batch, loss, tiny_model, train

from kdfast.config.quant import QuantConfig
from kdfast.errors import QATError
from kdfast.qat import (
    apply_qat_to_model,
    clamp_weights,
    convert_qat,
    freeze_scales,
    frozen_scales,
    load_frozen_scales,
    weight_quantizers,
)
from kdfast.quantized import quantize


def applied(**keys):
    return apply_qat_to_model(tiny_model(tied=True), QuantConfig(**keys))


def test_frozen_scales_stay_and_the_table_has_them():
    model = applied()
    scales = {name: quantize(weight.detach(), "int8_channel").scales for name, (_, weight) in _items(model)}
    assert freeze_scales(model) == len(scales) == 15
    assert freeze_scales(model) == 0
    train(model, 3, rate=0.5)
    clamp_weights(model)
    for name, (quantizer, weight) in _items(model):
        assert torch.equal(quantizer.scales, scales[name])
        assert bool((weight.abs() <= 127 * scales[name].float()).all())
    with torch.no_grad():
        trained = loss(model, batch())
    table = convert_qat(model).table
    assert all(torch.equal(table.tensors[name].scales, scales[name]) for name in scales)
    with torch.no_grad():
        assert torch.equal(loss(model, batch()), trained)


def _items(model):
    return weight_quantizers(model).items()


def test_weights_beyond_the_grid_are_clamped_and_others_stay():
    model = applied()
    freeze_scales(model)
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        limit = 127 * model.model.layers[0].mlp.up_proj.quantizer.scales[2, 0].float()
        weight.mul_(0.5)
        weight[2, :3] = torch.stack([2 * limit, -3 * limit, 0.5 * limit])
    others = weight[[0, 1, 3]].clone()
    clamp_weights(model)
    assert weight[2, :3].tolist() == [limit, -limit, 0.5 * limit]
    assert torch.equal(weight[[0, 1, 3]], others)


def test_only_int8_scales_are_frozen():
    model = applied(format="q4_0")
    assert freeze_scales(model) == 0
    before = copy.deepcopy(model.state_dict())
    clamp_weights(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    mixed = applied(format="q4_0", embeddings="int8")
    assert freeze_scales(mixed) == 1
    assert list(frozen_scales(mixed)) == ["model.embed_tokens.weight"]


def test_a_checkpoint_restores_frozen_scales():
    model = applied()
    freeze_scales(model)
    train(model, 2, rate=0.5)
    other = applied()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert loss(other, batch()) != loss(model, batch())
        load_frozen_scales(other, frozen_scales(model))
        assert loss(other, batch()) == loss(model, batch())
        load_frozen_scales(other, {})
        assert not frozen_scales(other)


def test_frozen_scales_of_another_model_are_refused():
    model, scale = applied(), torch.ones(300, 1, dtype=torch.float16)
    with pytest.raises(QATError, match=r"does not quantise to int8_channel: head"):
        load_frozen_scales(model, {"head": scale})
    with pytest.raises(
        QATError, match=r"must be float16 \[300, 1\]: model.embed_tokens.weight torch.float16 \[3, 1\]"
    ):
        load_frozen_scales(model, {"model.embed_tokens.weight": scale[:3]})
    with pytest.raises(QATError, match=r"does not quantise to int8_channel"):
        load_frozen_scales(applied(format="q8_0"), {"model.embed_tokens.weight": scale})
