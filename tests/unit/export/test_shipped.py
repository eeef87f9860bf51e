"""What ships: the table as it is, a float student quantised by the same rule, floats; put back into a model exactly."""

import pytest
import torch
from export_students import any_codes_student, tiny_student_model, trained_student
from torch import nn

from kdfast.errors import ConfigError, QATError
from kdfast.export.shipped import shipped_weights, table_type
from kdfast.quantized import Quantized, QuantizedTable, q4_0, quantize

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_student(tmp_path_factory.mktemp("trained") / "student", tied=True)


def test_the_table_ships_as_it_is(trained):
    made = shipped_weights(trained.model, trained.table, None)
    assert (made.type, made.origin) == ("q4_0", "trained")
    assert list(made.tensors) == [name for name, _ in trained.model.named_parameters()]
    for name, one in trained.table.tensors.items():
        assert made.tensors[name] is one
    norm = made.tensors["model.norm.weight"]
    assert norm.dtype == torch.float32
    assert torch.equal(norm, trained.model.model.norm.weight)


def test_a_tied_weight_ships_once(trained):
    made = shipped_weights(trained.model, trained.table, None)
    assert EMBEDDING in made.tensors
    assert "lm_head.weight" not in made.tensors


@pytest.mark.parametrize("asked", ["q8_0", "f16"])
def test_a_trained_table_is_never_quantised_again(trained, asked):
    with pytest.raises(ConfigError, match=f"--type: the student was trained as q4_0.*: {asked}$"):
        shipped_weights(trained.model, trained.table, asked)


def test_the_tables_own_type_may_be_asked_for(trained):
    assert shipped_weights(trained.model, trained.table, "q4_0").origin == "trained"


@pytest.mark.parametrize(("kind", "type_"), [("int8_channel", "q8_0"), ("q8_0", "q8_0"), ("q4_0", "q4_0")])
def test_a_tables_type(kind, type_):
    assert table_type(QuantizedTable({"w": quantize(torch.randn(2, 32), kind)})) == type_


@pytest.mark.parametrize(("asked", "type_"), [(None, "q8_0"), ("q8_0", "q8_0"), ("q4_0", "q4_0")])
def test_a_float_student_is_quantised_by_the_same_rule(asked, type_):
    model = tiny_student_model()
    made = shipped_weights(model, None, asked)
    assert (made.type, made.origin) == (type_, "post-training")
    weight = dict(model.named_parameters())["model.layers.0.mlp.up_proj.weight"].detach()
    expected = quantize(weight, type_)
    found = made.tensors["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)
    assert made.tensors[EMBEDDING].format == "q8_0"  # beside q4_0 too


def test_floats_are_float16_matrices_and_float32_vectors():
    model = tiny_student_model("qwen2")
    made = shipped_weights(model, None, "f16")
    assert (made.type, made.origin) == ("f16", "float")
    for name, parameter in model.named_parameters():
        expected = torch.float16 if parameter.dim() == 2 else torch.float32
        assert made.tensors[name].dtype == expected
        assert torch.equal(made.tensors[name], parameter.detach().to(expected))


@pytest.mark.parametrize("type_", ["f16", "q8_0", "q4_0"])
def test_what_is_put_into_a_model_is_what_ships(type_):
    made, other = shipped_weights(tiny_student_model(seed=1), None, type_), tiny_student_model(seed=2)
    made.put_into(other)
    for name, parameter in other.named_parameters():
        one = made.tensors[name]
        values = one.dequantize() if isinstance(one, Quantized) else one.float()
        assert torch.equal(parameter, values)


def test_any_codes_are_put_into_a_model(tmp_path):
    student = any_codes_student(tmp_path / "student", "qwen3")
    shipped_weights(student.model, student.table).put_into(other := tiny_student_model("qwen3", seed=3))
    for mine, theirs in zip(student.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_another_model_is_refused():
    made = shipped_weights(nn.Linear(32, 2), None, "f16")
    with pytest.raises(ValueError, match="other parameters: bias"):
        made.put_into(nn.Linear(32, 2, bias=False))
    with pytest.raises(ValueError, match=r"weight must be float32 \[2, 32\]: torch.float32 \[2, 64\]"):
        made.put_into(nn.Linear(64, 2))
    with pytest.raises(ValueError, match=r"torch\.float64"):
        made.put_into(nn.Linear(32, 2).double())


def test_a_weight_that_float16_cannot_hold_is_named():
    layer = nn.Linear(32, 2)
    with torch.no_grad():
        layer.weight[1, 3] = 70000.0
    with pytest.raises(
        ConfigError, match=r"too large for float16; export the student as q8_0: weight \[1, 3\] is 70000\.0$"
    ):
        shipped_weights(layer, None, "f16")
    assert shipped_weights(layer, None, "q8_0").type == "q8_0"


@pytest.mark.parametrize("type_", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("name", "place"), [("weight", (1, 3)), ("bias", (1,))])
def test_a_weight_that_is_no_number_is_named_and_no_other_type_advised(type_, value, name, place):
    layer = nn.Linear(32, 2)
    with torch.no_grad():
        getattr(layer, name)[place] = value
    with pytest.raises(ConfigError) as caught:
        shipped_weights(layer, None, type_)
    said = str(caught.value)
    assert said.startswith(
        "model: a weight is no finite number, and no type can hold it; train the student again: "
    )
    assert said.endswith(f"{name} {list(place)} is {value}")


def test_a_scale_that_float16_cannot_hold_is_named():
    layer = nn.Linear(32, 2)
    with torch.no_grad():
        layer.weight[1, 3] = 1e9
    with pytest.raises(QATError, match=r"weight: its weights are too large.*row 1"):
        shipped_weights(layer, None, "q8_0")


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(
        ConfigError, match=r"--type: q8_0 has blocks of 32.*export the student as f16: weight \[2, 33\]$"
    ):
        shipped_weights(nn.Linear(33, 2), None, "q8_0")


def test_a_table_of_another_model_is_refused():
    table = QuantizedTable({"other.weight": q4_0(torch.randn(2, 32))})
    with pytest.raises(QATError, match=r"not in the model.*other\.weight$"):
        shipped_weights(nn.Linear(32, 2), table, None)
