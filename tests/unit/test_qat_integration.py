"""Quantisation-aware training as a user's own loop has it: on at its step, by its config, watched for stability."""

import copy

import pytest
import torch
from quantized_models import batch, loss, tiny_model, train

from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError
from kdfast.qat import apply_qat_to_model, check_qat_stability, convert_qat, is_qat_applied, should_enable_qat
from kdfast.quantized import plan_model, quantize


def run(config, total_steps):
    """A loop of one's own: gives the model, and the steps that ran under quantisation."""
    model, quantised = tiny_model(), []
    for step in range(total_steps):
        if should_enable_qat(step, total_steps, config):
            apply_qat_to_model(model, config)
            quantised.append(step)
        train(model, 1)
    return model, quantised


def test_qat_disabled() -> None:
    """Without `enabled` no step is quantised, and the weights are those of plain training."""
    model, quantised = run(QuantConfig(enabled=False, start_fraction=0), 4)
    assert quantised == []
    assert not is_qat_applied(model)
    plain = tiny_model()
    train(plain, 4)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), plain.parameters(), strict=True))


def test_qat_enabled_at_start_fraction() -> None:
    """Steps 0 to 7 of 10 are plain, 8 and 9 are quantised: exactly at the step, as if it were switched on by hand."""
    config = QuantConfig(enabled=True, start_fraction=0.8, format="q4_0")
    model, quantised = run(config, 10)
    assert quantised == [8, 9]
    by_hand = tiny_model()
    train(by_hand, 8)
    apply_qat_to_model(by_hand, config)
    train(by_hand, 2)
    assert all(
        torch.equal(one, two) for one, two in zip(model.parameters(), by_hand.parameters(), strict=True)
    )
    for total, fraction, first in ((1000, 0.8, 800), (100, 0.29, 29), (7, 0.8, 6), (5, 0.0, 0)):
        config = QuantConfig(enabled=True, start_fraction=fraction)
        on = [should_enable_qat(step, total, config) for step in range(total)]
        assert on == [False] * first + [True] * (total - first)


def test_qat_config_parameters() -> None:
    """The section's keys reach the model: format, embeddings' format, limits; wrong ones are refused by name."""
    config = QuantConfig(
        enabled=True, format="q4_0", embeddings="int8", start_fraction=0.5, learning_rate=1e-5
    )
    assert config.to_dict()["embeddings"] == "int8"
    assert (config.phase_start(10), config.peak, config.lowest_cosine) == (5, 1e-5, 0.95)
    model = apply_qat_to_model(tiny_model(), config)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    formats = {tensor.name: tensor.format for tensor in plan_model(model, config).tensors}
    assert formats["lm_head.weight"] == formats["model.embed_tokens.weight"] == "int8_channel"
    assert formats["model.layers.0.mlp.up_proj.weight"] == "q4_0"
    table = convert_qat(model).table
    for name, kind in formats.items():
        assert torch.equal(table.tensors[name].codes, quantize(weights[name], kind).codes)
        assert torch.equal(model.state_dict()[name], quantize(weights[name], kind).dequantize())
    with pytest.raises(
        ConfigError, match=r"^quant.format: must be 'int8_channel', 'q4_0' or 'q8_0', got 'int4'$"
    ):
        QuantConfig(format="int4")  # type: ignore[arg-type]


def test_stability_check_no_nan() -> None:
    """A model that rounds well passes, with its numbers in the report; training under quantisation lowers the loss."""
    config = QuantConfig(enabled=True)
    model = apply_qat_to_model(tiny_model(), config)
    losses = train(model, 5, rate=0.1)
    assert losses == sorted(losses, reverse=True)
    report = check_qat_stability(model, batch(), config)
    assert report.passed, report.reasons
    assert report.non_finite == 0
    assert report.lowest_cosine is not None
    assert 0.999 <= report.lowest_cosine < 1
    assert report.kl is not None
    assert 0 < report.kl < 1e-3


def test_stability_check_with_nan() -> None:
    """NaN under quantisation fails the check, and the report counts it; so does a weight that is NaN itself."""
    config = QuantConfig(enabled=True)
    model = apply_qat_to_model(tiny_model(), config)
    healthy = copy.deepcopy(model)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight[0, 0] = float("nan")
    report = check_qat_stability(model, batch(), config)
    assert not report.passed
    assert report.ran
    assert report.non_finite > 0
    assert report.non_finite_float > 0
    assert "NaN or infinite" in report.reasons[0]
    assert report.to_json()["kl"] is None
    assert check_qat_stability(healthy, batch(), config).passed


def test_stability_check_error_handling() -> None:
    """A check that cannot run is a failed check with its reason, never a pass; the model stays usable."""
    config = QuantConfig(enabled=True)
    model = apply_qat_to_model(tiny_model(), config)
    rows = batch()
    before = loss(model, rows).item()
    for broken in (
        {},
        {**rows, "input_ids": rows["input_ids"] * 1000},
        {**rows, "input_ids": None},
        {**rows, "labels": torch.full_like(rows["labels"], -100)},
    ):
        report = check_qat_stability(model, broken, config)
        assert not report.passed
        assert not report.ran
        assert len(report.reasons) == 1
        assert report.reasons[0].startswith("the check could not be made: ")
        assert report.kl is None
    assert loss(model, rows).item() == before
