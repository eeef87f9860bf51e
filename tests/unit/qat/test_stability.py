"""The stability check: against plain arithmetic, at its limits, with NaN, and where it cannot be made."""

import math

import pytest
import torch
from quantized_models import batch, tiny_model

from kdfast.config.quant import QuantConfig
from kdfast.qat import StabilityReport, apply_qat_to_model, check_qat_stability, convert_qat
from kdfast.qat.stability import judge

INT8, Q4 = QuantConfig(), QuantConfig(format="q4_0")


def applied(config=INT8, **options):
    return apply_qat_to_model(tiny_model(**options), config)


def report(cosine=0.98, kl=0.05, **changes):
    return StabilityReport(passed=False, positions=9, cosines=(0.9999, cosine), kl=kl, **changes)


@pytest.mark.parametrize("config", [INT8, Q4])
@pytest.mark.parametrize("tied", [False, True])
def test_numbers_equal_plain_arithmetic(config, tied):
    rows, model, plain = batch(), applied(config, tied=tied), tiny_model(tied=tied)
    found = check_qat_stability(model, rows, config)
    mask = rows["labels"] != -100
    mask[:, 0] = False
    shipped = convert_qat(model).model
    with torch.no_grad():
        outputs = [
            one(input_ids=rows["input_ids"], output_hidden_states=True, use_cache=False)
            for one in (plain, shipped)
        ]
    cosines = [
        sum(
            float(torch.dot(a, b)) / math.sqrt(float(torch.dot(a, a)) * float(torch.dot(b, b)))
            for a, b in zip(one[mask].double(), two[mask].double(), strict=True)
        )
        / int(mask.sum())
        for one, two in zip(outputs[0].hidden_states, outputs[1].hidden_states, strict=True)
    ]
    logp, logq = (output.logits[mask].double().log_softmax(1) for output in outputs)
    assert found.positions == int(mask.sum()) > 5
    assert found.cosines == pytest.approx(cosines, abs=1e-7)  # a row alone rounds otherwise in fp32
    assert found.kl == pytest.approx(float((logp.exp() * (logp - logq)).sum(1).mean()), rel=1e-3, abs=1e-8)
    assert found.top1_fraction == float((logp.argmax(1) == logq.argmax(1)).double().mean())
    assert (found.non_finite, found.non_finite_float, found.ran) == (0, 0, True)
    assert found.lowest_cosine == min(found.cosines)
    assert len(found.cosines) == 3


def test_int8_of_calm_weights_passes_and_nothing_is_changed():
    model, rows = applied(), batch()
    model.train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    found = check_qat_stability(model, rows, INT8)
    assert found.passed
    assert not found.reasons
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.lm_head.quantizer.active
    assert check_qat_stability(model, rows, INT8) == found


def test_position_0_is_never_compared():
    rows = batch()
    rows["labels"] = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    found = check_qat_stability(applied(), rows, INT8)
    assert found.positions == int(rows["attention_mask"].sum()) - len(rows["labels"])


def test_a_low_cosine_fails_and_names_its_layer():
    found = check_qat_stability(applied(initializer_range=1.0), batch(), INT8)
    assert not found.passed
    assert found.ran
    assert found.reasons[0].startswith(f"layer {found.cosines.index(found.lowest_cosine)}: mean cosine 0.9")
    assert "is below quant.min_cosine (0.999)" in found.reasons[0]


@pytest.mark.parametrize("both", [False, True])
def test_nan_under_quantisation_is_told_from_nan_in_the_float_weights(both):
    model = applied()
    with torch.no_grad():
        if both:
            model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
        else:  # a scale that fp16 cannot hold; the float weights are finite
            model.model.layers[1].mlp.up_proj.weight[3, 4] = 127 * 1e5
            model.model.layers[1].mlp.down_proj.weight[:, 3] = 0
    found = check_qat_stability(model, batch(), INT8)
    assert not found.passed
    assert found.ran
    assert found.non_finite > 0
    assert (found.non_finite_float > 0) == both
    assert ("the float weights give them too" in found.reasons[0]) == both
    assert found.lowest_cosine is None
    assert found.kl is None


def test_q4_0_is_held_to_its_own_first_value_twice_in_a_row():
    first = judge(report(), Q4)
    assert first.passed
    steady = judge(report(cosine=0.9701, kl=0.0749), Q4, first=first, previous=first)
    assert steady.passed
    assert not steady.drifting
    for worse in (report(cosine=0.9699), report(kl=0.0751)):
        once = judge(worse, Q4, first=first, previous=first)
        assert once.passed
        assert once.drifting
        assert "at one check so far" in once.reasons[0]
        twice = judge(worse, Q4, first=first, previous=once)
        assert not twice.passed
        assert "above 1.5 times its first value" in twice.reasons[0]
        assert judge(report(), Q4, first=first, previous=once).passed
    assert not judge(report(cosine=0.949), Q4, first=first, previous=first).passed
    assert judge(report(cosine=0.9991), INT8, first=report(cosine=0.9999), previous=once).passed


def test_what_is_negligible_may_grow():
    """A student that rounding hardly hurts is no failure when that little grows many times over."""
    first = judge(report(cosine=0.9999, kl=0.0001), Q4)
    grown = report(cosine=0.9901, kl=0.0099)
    found = judge(grown, Q4, first=first, previous=judge(grown, Q4, first=first, previous=first))
    assert found.passed
    assert not found.drifting
    for worse in (report(cosine=0.9899, kl=0.0001), report(cosine=0.9999, kl=0.0101)):
        once = judge(worse, Q4, first=first, previous=first)
        assert once.drifting
        assert not judge(worse, Q4, first=first, previous=once).passed


def test_a_q4_0_student_with_more_to_mend_is_judged_by_its_own_beginning():
    """The default limit is for students that begin above it; one that the user set holds always."""
    first = judge(report(cosine=0.9), Q4)
    assert first.passed
    assert "as when quantisation began" in first.reasons[0]
    assert judge(report(cosine=0.89), Q4, first=first, previous=first).passed
    once = judge(report(cosine=0.84), Q4, first=first, previous=first)
    assert once.passed
    assert once.drifting
    assert not judge(report(cosine=0.84), Q4, first=first, previous=once).passed
    strict = QuantConfig(format="q4_0", min_cosine=0.95)
    assert not judge(report(cosine=0.9), strict).passed
    assert not judge(report(cosine=0.9), INT8).passed


def test_a_check_that_cannot_be_made_has_failed():
    model, rows = applied(), batch()
    nothing = {**rows, "labels": torch.full_like(rows["labels"], -100)}
    only_first = {**nothing, "labels": nothing["labels"].index_fill(1, torch.tensor([0]), 3)}
    broken = {
        "KeyError: 'labels'": (model, {name: rows[name] for name in ("input_ids", "attention_mask")}),
        "no answer position after position 0": (model, nothing),
        "no answer position": (model, only_first),
        "padded on the right": (model, {**rows, "attention_mask": rows["attention_mask"].flip(1)}),
        "index out of range": (model, {**rows, "input_ids": rows["input_ids"] + 300}),
        "not under quantisation": (tiny_model(), rows),
        "base_model": (apply_qat_to_model(torch.nn.Linear(32, 2), INT8), rows),
        "AttributeError": (model, {**rows, "input_ids": [[1, 2]]}),
    }
    for words, (one, some) in broken.items():
        found = check_qat_stability(one, some, INT8)
        assert not found.passed
        assert not found.ran
        assert found.reasons[0].startswith("the check could not be made: ")
        assert words in found.reasons[0]
        assert found.kl is None
        assert found.lowest_cosine is None
    assert check_qat_stability(model, rows, INT8).passed  # and the model is as it was


@pytest.mark.parametrize(
    "one", [report(), StabilityReport(passed=False, ran=False, reasons=("why",)), report(math.nan)]
)
def test_reports_survive_json(one):
    import json

    values = one.to_json()
    if not math.isnan(one.cosines[-1] if one.cosines else 0.0):
        assert StabilityReport.from_json(json.loads(json.dumps(values, allow_nan=False))) == one
    else:
        assert values["cosines"][0] == 0.9999
