"""Fake quantisation: its forward is q * s, its gradient is straight through, and a weight is quantised once a step."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from quantized_models import batch, loss, tiny_model
from torch import nn

from kdfast.config.quant import QuantConfig
from kdfast.errors import QATError
from kdfast.losses import RowTargets, linear_kd
from kdfast.qat import (
    WeightQuantizer,
    apply_qat_to_model,
    effective_weight,
    float_weights,
    refresh,
    remove_qat,
    weight_quantizers,
)
from kdfast.quantized import plan_model, quantize

FORMATS = ("int8_channel", "q8_0", "q4_0")


def applied(model, name="q4_0", **keys):
    return apply_qat_to_model(model, QuantConfig(format=name, **keys))


def plain_straight_through(weight, name):
    """The textbook form, arranged so that its value is q * s to the last bit."""
    return quantize(weight.detach(), name).dequantize() + (weight - weight.detach())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_loss_and_gradients_equal_the_textbook_s_bit_for_bit(name, tied, family):
    model = applied(tiny_model(family, tied=tied), name)
    loss(model, batch()).backward()
    twin = tiny_model(family, tied=tied)
    formats = {tensor.name: tensor.format for tensor in plan_model(twin, QuantConfig(format=name)).tensors}
    leaves = {key: value.detach().clone().requires_grad_() for key, value in twin.named_parameters()}
    through = {
        key: plain_straight_through(leaf, formats[key]) if key in formats else leaf
        for key, leaf in leaves.items()
    }
    ids = batch()["input_ids"]
    logits = torch.func.functional_call(twin, through, (), {"input_ids": ids, "use_cache": False}).logits
    F.cross_entropy(logits.flatten(0, 1), batch()["labels"].flatten()).backward()
    assert {key for key, _ in model.named_parameters()} == leaves.keys()
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, leaves[key].grad), key


def test_clipped_weights_get_their_gradient_too():
    weight = torch.zeros(1, 32)
    weight[0, :2] = torch.tensor([1.0, -1.0])  # -1 is cut to -7/8
    layer = nn.Linear(32, 1, bias=False)
    layer.weight = nn.Parameter(weight)
    applied(layer)
    layer(torch.arange(32.0)).backward()
    assert layer.weight.grad.tolist() == [list(range(32))]
    assert effective_weight(layer)[0, 1].item() == -0.875


def test_a_block_that_underflows_gets_its_gradient():
    layer = nn.Linear(32, 1, bias=False)
    layer.weight = nn.Parameter(torch.full((1, 32), 1e-9))
    applied(layer)
    output = layer(torch.ones(32))
    output.backward()
    assert output.item() == 0
    assert layer.weight.grad.tolist() == [[1.0] * 32]


def test_one_layer_trained_by_hand_in_numpy_is_equal():
    """Steps of SGD on |Wx - y|^2 / 2; all numbers are multiples of 2^-12 at first, so sums are nearly exact."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-64, 65, (2, 32)).astype(np.float32) / 64
    inputs = rng.integers(-4, 5, (4, 32)).astype(np.float32) / 4
    wanted = rng.integers(-4, 5, (4, 2)).astype(np.float32)
    layer = nn.Linear(32, 2, bias=False)
    layer.weight = nn.Parameter(torch.from_numpy(weight.copy()))
    applied(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=2**-7)
    changed = 0
    for _ in range(8):
        optimizer.zero_grad()
        (0.5 * (layer(torch.from_numpy(inputs)) - torch.from_numpy(wanted)).square().sum()).backward()
        optimizer.step()
        rounded = np.concatenate([_rounded_q4_0(row) for row in weight]).reshape(2, 32)
        before = rounded.copy()
        weight = weight - np.float32(2**-7) * ((inputs @ rounded.T - wanted).T @ inputs)
        assert np.allclose(layer.weight.detach().numpy(), weight, rtol=0, atol=1e-5)
        changed += int(
            (np.concatenate([_rounded_q4_0(row) for row in weight]).reshape(2, 32) != before).sum()
        )
    assert changed > 50


def _rounded_q4_0(row):
    extreme = row[np.abs(row).argmax()]
    scale = np.float32(extreme / np.float32(-8))
    codes = np.minimum(15, np.trunc(row * (np.float32(1) / scale) + np.float32(8.5))) - 8
    return (codes * np.float32(np.float16(scale))).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_parameters_keep_their_names_and_are_the_same_objects(name):
    model = tiny_model(tied=True)
    before, weights = list(model.state_dict()), dict(model.named_parameters())
    applied(model, name)
    assert list(model.state_dict()) == before
    assert all(parameter is weights[key] for key, parameter in model.named_parameters())
    assert all(
        torch.equal(value, weights[key]) for key, value in model.state_dict().items() if key in weights
    )
    remove_qat(model)
    assert not weight_quantizers(model)
    assert type(model.lm_head) is nn.Linear
    assert "quantizer" not in vars(model.lm_head)
    assert "Fake" not in repr(model)


def test_only_the_head_is_quantised_wherever_its_weight_is_handed_on():
    """The logits of the layer, of `linear_kd` on the handed weight, and of a plain product are one."""
    config = QuantConfig(format="q4_0", embeddings="same")
    model, plain = tiny_model(), tiny_model()
    apply_qat_to_model(model, config, plan=plan_model(model, config).only(["lm_head.weight"]))
    rows = batch()
    hidden = model.base_model(input_ids=rows["input_ids"]).last_hidden_state
    assert torch.equal(hidden, plain.base_model(input_ids=rows["input_ids"]).last_hidden_state)
    weight = effective_weight(model.lm_head)
    assert torch.equal(weight, quantize(plain.lm_head.weight.detach(), "q4_0").dequantize())
    assert torch.equal(model.lm_head(hidden), hidden @ weight.T)
    mask = rows["labels"] != -100
    targets = RowTargets(
        labels=rows["labels"][mask][:, None], label_coefficients=torch.full((int(mask.sum()), 1), 0.1)
    )
    linear_kd(hidden[mask], weight, targets).total.backward()
    handed = model.lm_head.weight.grad.clone()
    model.zero_grad()
    logits = model.lm_head(model.base_model(input_ids=rows["input_ids"]).last_hidden_state[mask])
    (0.1 * F.cross_entropy(logits, rows["labels"][mask], reduction="sum")).backward()
    assert torch.allclose(handed, model.lm_head.weight.grad, rtol=1e-5, atol=1e-7)
    assert effective_weight(plain.lm_head) is plain.lm_head.weight


def test_a_weight_is_quantised_once_a_step():
    model = applied(tiny_model(tied=True), "q4_0")
    quantizers = {name: quantizer for name, (quantizer, _) in weight_quantizers(model).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, 4):
        for _ in range(3):  # micro-batches
            loss(model, batch()).backward()
        assert {quantizer.times_made for quantizer in quantizers.values()} == {step}
        with torch.no_grad():
            loss(model, batch())  # a validation
        assert {quantizer.times_made for quantizer in quantizers.values()} == {step}
        optimizer.step()
        optimizer.zero_grad()
    loss(model, batch())
    assert {quantizer.times_made for quantizer in quantizers.values()} == {4}


def test_micro_batches_add_up_as_without_the_kept_values():
    model, other = applied(tiny_model(tied=True)), applied(tiny_model(tied=True))
    for _ in range(2):
        loss(model, batch()).backward()
        refresh(other)
        loss(other, batch()).backward()
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad), name


def test_every_change_of_a_weight_is_seen():
    layer = applied(nn.Linear(32, 2, bias=False))

    def right():
        return torch.equal(effective_weight(layer), quantize(layer.weight.detach(), "q4_0").dequantize())

    assert right()
    with torch.no_grad():
        layer.weight.mul_(2)
    assert right()
    layer.load_state_dict({"weight": torch.randn(2, 32)})
    assert right()
    layer.load_state_dict({"weight": torch.randn(2, 32)}, assign=True)
    assert right()
    layer.weight = nn.Parameter(torch.randn(2, 32))
    assert right()
    layer.weight.data = torch.randn(2, 32)
    assert right()
    layer.weight.data.mul_(3)  # this one is not counted by autograd
    assert not right()
    refresh(layer)
    assert right()


def test_a_weight_that_changes_between_forward_and_backward_is_an_error_as_in_a_float_model():
    layer = applied(nn.Linear(32, 2, bias=False))
    inputs = torch.ones(1, 32, requires_grad=True)
    output = layer(inputs).sum()
    with torch.no_grad():
        layer.weight.mul_(2)
    layer(inputs)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_what_a_validation_made_in_inference_mode_serves_training():
    model = applied(tiny_model(tied=True))
    with torch.inference_mode():
        loss(model, batch())
    made = {quantizer.times_made for quantizer, _ in weight_quantizers(model).values()}
    loss(model, batch()).backward()
    assert made == {quantizer.times_made for quantizer, _ in weight_quantizers(model).values()} == {1}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_copies_are_independent(copied):
    model = applied(tiny_model(tied=True))
    first = loss(model, batch()).item()
    other = copied(model)
    assert loss(other, batch()).item() == first
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert loss(other, batch()).item() != first
    assert loss(model, batch()).item() == first
    assert other.lm_head.quantizer is other.model.embed_tokens.quantizer
    assert other.lm_head.quantizer is not model.lm_head.quantizer


@pytest.mark.parametrize("name", FORMATS)
def test_bf16_autocast_quantises_in_fp32_and_casts_afterwards(name):
    layer = applied(nn.Linear(64, 3), name)
    inputs = torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(inputs)
    rounded = quantize(layer.weight.detach(), name).dequantize()
    right = F.linear(inputs.bfloat16(), rounded.bfloat16(), layer.bias.bfloat16())
    assert torch.equal(output, right)
    output.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert torch.equal(
        layer.weight.grad, inputs.bfloat16().sum(0, dtype=torch.float32).bfloat16().float().expand(3, 64)
    )


@pytest.mark.parametrize("name", FORMATS)
def test_an_embedding_gives_rows_of_the_quantised_weight(name):
    layer = nn.Embedding(9, 32, padding_idx=2)
    config = QuantConfig(format=name, embeddings="same")
    apply_qat_to_model(layer, config)
    ids = torch.tensor([[1, 2, 2], [8, 1, 0]])
    rows = layer(ids)
    assert layer.quantizer.times_made == 0  # only the rows that are read are quantised
    assert torch.equal(rows, quantize(layer.weight.detach(), name).dequantize()[ids])
    rows.sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 1]
    assert torch.equal(effective_weight(layer)[ids], rows)


def test_without_quantisation_for_a_while():
    model, plain = applied(tiny_model(tied=True)), tiny_model(tied=True)
    with float_weights(model):
        assert loss(model, batch()).item() == loss(plain, batch()).item()
        assert effective_weight(model.lm_head) is model.lm_head.weight
        with float_weights(model):
            pass
        assert effective_weight(model.lm_head) is model.lm_head.weight
    assert loss(model, batch()).item() != loss(plain, batch()).item()


def test_weights_that_are_not_float32_are_refused_in_the_forward():
    layer = applied(nn.Linear(32, 2)).bfloat16()
    with pytest.raises(QATError, match=r"must be float32 .* by autocast .*: weight is torch.bfloat16"):
        layer(torch.ones(1, 32, dtype=torch.bfloat16))


def test_layers_with_a_class_of_their_own_are_refused_and_the_model_is_left_as_it_was():
    class Scaled(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * 3

    model = nn.Sequential(nn.Linear(32, 32), Scaled(4, 32))
    with pytest.raises(QATError, match=r"only torch's own .*: 1 is Scaled"):
        applied(model)
    assert type(model[0]) is nn.Linear
    with pytest.raises(QATError, match=r"max_norm .*: "):
        applied(nn.Embedding(4, 32, max_norm=1.0))


def test_layers_that_moved_are_noticed():
    model = applied(nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32)))
    model[0], model[1] = model[1], model[0]
    with pytest.raises(QATError, match="layers changed while quantisation was on"):
        weight_quantizers(model)


def test_frozen_scales_of_blocks_are_refused():
    with pytest.raises(QATError, match="only scales of int8_channel can be frozen: a is q4_0"):
        WeightQuantizer("a", "q4_0").freeze(torch.ones(1, 32))
