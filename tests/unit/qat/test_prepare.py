"""Switching quantisation on and off, and converting: exactly at its step, twice, on models that do not fit."""

import pytest
import torch
from quantized_models import batch, loss, tiny_model, train
from torch import nn

from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError, QATError
from kdfast.pretrained import load_causal_lm
from kdfast.qat import (
    apply_qat_to_model,
    convert_qat,
    is_qat_applied,
    remove_qat,
    should_enable_qat,
    weight_quantizers,
)
from kdfast.quantized import TABLE_FILE, check_saved, plan_model, quantize, write_table

FORMATS = ("int8_channel", "q8_0", "q4_0")
ON = QuantConfig(enabled=True)


def test_on_from_the_first_step_of_the_fraction_to_the_last():
    enabled = [
        should_enable_qat(step, 10, QuantConfig(enabled=True, start_fraction=0.7)) for step in range(10)
    ]
    assert enabled == [False] * 7 + [True] * 3
    assert all(should_enable_qat(step, 3, QuantConfig(enabled=True, start_fraction=0)) for step in range(3))
    assert not any(should_enable_qat(step, 10, QuantConfig()) for step in range(10))


@pytest.mark.parametrize(("step", "total"), [(-1, 10), (0, 0)])
def test_steps_that_cannot_be_are_refused(step, total):
    with pytest.raises(ValueError, match="step must be 0 or more"):
        should_enable_qat(step, total, ON)


def test_applied_twice_by_the_same_plan_is_applied_once():
    model = tiny_model(tied=True)
    assert apply_qat_to_model(model, ON) is model
    before = weight_quantizers(model)
    assert apply_qat_to_model(model, ON) is model
    assert weight_quantizers(model) == before
    assert is_qat_applied(model)


def test_applied_by_another_plan_is_refused():
    model = apply_qat_to_model(tiny_model(), ON)
    with pytest.raises(
        QATError, match=r"by another plan already; call remove_qat first: .* is int8_channel, planned q8_0"
    ):
        apply_qat_to_model(model, QuantConfig(format="q4_0"))
    with pytest.raises(QATError, match=r"self_attn.q_proj.weight is int8_channel, planned float"):
        apply_qat_to_model(model, ON, plan=plan_model(model, ON).only(["model.embed_tokens.weight"]))
    apply_qat_to_model(remove_qat(model), QuantConfig(format="q4_0"))


def test_a_model_that_does_not_fit_is_left_as_it_was():
    narrow = tiny_model(intermediate_size=40)
    with pytest.raises(ConfigError, match=r"^quant.format: q4_0"):
        apply_qat_to_model(narrow, QuantConfig(format="q4_0"))
    half = tiny_model().bfloat16()
    with pytest.raises(
        QATError, match=r"on float32 weights; .*: model.embed_tokens.weight is torch.bfloat16"
    ):
        apply_qat_to_model(half, ON)
    huge = tiny_model()
    with torch.no_grad():
        huge.lm_head.weight[7, 3] = 1e8
    with pytest.raises(QATError, match=r"^lm_head.weight: .*int8_channel cannot store the scale of row 7"):
        apply_qat_to_model(huge, ON)
    assert not any(map(is_qat_applied, (narrow, half, huge)))


def test_removed_the_model_is_float_again_and_training_went_on_in_its_weights():
    model = apply_qat_to_model(tiny_model(), ON)
    train(model, 2)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    assert remove_qat(model) is remove_qat(model) is model
    assert not is_qat_applied(model)
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_what_was_trained_is_what_ships(name, tied, family, tmp_path):
    config = QuantConfig(format=name)
    model = apply_qat_to_model(tiny_model(family, tied=tied), config)
    plan = plan_model(model, config)
    losses = train(model, 6, rate=0.1)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        trained = loss(model, batch())
    converted = convert_qat(model)
    assert converted.model is model
    assert not is_qat_applied(model)
    with torch.no_grad():
        assert torch.equal(loss(model, batch()), trained)
    converted.table.check_plan(plan)
    model.save_pretrained(tmp_path)
    write_table(converted.table, tmp_path)
    assert check_saved(tmp_path, plan).fingerprint() == converted.table.fingerprint()
    again = load_causal_lm(tmp_path, dtype=torch.float32, error=QATError, name="student")
    with torch.no_grad():
        assert torch.equal(loss(again, batch()), trained)
    assert (tmp_path / TABLE_FILE).stat().st_size > 0


@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_under_quantisation_holds_the_float_weights(tied, tmp_path):
    config = QuantConfig(format="q4_0")
    model = apply_qat_to_model(tiny_model(tied=tied), config)
    train(model, 2)
    model.save_pretrained(tmp_path)
    again = load_causal_lm(tmp_path, dtype=torch.float32, error=QATError, name="checkpoint")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    apply_qat_to_model(again, config)
    assert train(again, 3) == train(model, 3)


def test_a_student_that_ships_trains_on_from_the_same_codes():
    """The finished student under quantisation from the first step: nothing jumps."""
    config = QuantConfig(format="q4_0")
    model = apply_qat_to_model(tiny_model(), config)
    train(model, 3, rate=0.1)
    first = convert_qat(model).table
    second = convert_qat(apply_qat_to_model(model, config)).table
    assert second.fingerprint() == first.fingerprint()


def test_converted_twice_or_never_quantised_is_refused():
    model = apply_qat_to_model(tiny_model(), ON)
    convert_qat(model)
    for one in (model, tiny_model()):
        with pytest.raises(
            QATError, match="no fake-quantised layer: it was converted before, or apply_qat_to_model"
        ):
            convert_qat(one)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_not_converted(value):
    model = apply_qat_to_model(tiny_model(), ON)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    before = model.lm_head.weight.clone()
    with pytest.raises(QATError, match=r"NaN or infinite; .*: model.layers.1.mlp.up_proj.weight"):
        convert_qat(model)
    assert is_qat_applied(model)
    assert torch.equal(model.lm_head.weight, before)


def test_biases_and_norms_stay_float():
    model = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = convert_qat(apply_qat_to_model(model, QuantConfig(format="q4_0"))).table
    assert list(table.tensors) == ["0.weight"]
    for name, value in model.state_dict().items():
        right = quantize(before[name], "q4_0").dequantize() if name == "0.weight" else before[name]
        assert torch.equal(value, right)
