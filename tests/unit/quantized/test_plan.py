"""Which tensors are quantised: formats of layers and embeddings, ties, widths that do not fit."""

import pytest
import torch
from tiny_models import tiny_llama
from torch import nn

from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError, QATError
from kdfast.quantized import plan_model

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def formats(model, **keys):
    return {tensor.name: tensor.format for tensor in plan_model(model, QuantConfig(**keys)).tensors}


def test_linear_layers_are_quantised_and_norms_are_not():
    model = tiny_llama(layers=1)
    plan = plan_model(model, QuantConfig(format="int8_channel"))
    parts = [f"self_attn.{part}_proj" for part in "qkvo"] + [
        f"mlp.{part}_proj" for part in ("gate", "up", "down")
    ]
    inner = [f"model.layers.0.{part}.weight" for part in parts]
    assert plan.names == (EMBEDDING, *inner, HEAD)
    assert set(plan.floats) == {
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
    }
    assert {tensor.name: (tensor.shape, tensor.embedding) for tensor in plan.tensors}[EMBEDDING] == (
        (300, 32),
        True,
    )


@pytest.mark.parametrize(
    ("keys", "inner", "outer"),
    [
        ({"format": "int8_channel"}, "int8_channel", "int8_channel"),
        ({"format": "q8_0"}, "q8_0", "q8_0"),
        ({"format": "q4_0"}, "q4_0", "q8_0"),
        ({"format": "q4_0", "embeddings": "same"}, "q4_0", "q4_0"),
        ({"format": "q4_0", "embeddings": "int8"}, "q4_0", "int8_channel"),
        ({"format": "int8_channel", "embeddings": "q8_0"}, "int8_channel", "q8_0"),
        ({"format": "q4_0", "embeddings": "none"}, "q4_0", None),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_embedding_and_output_layer_have_their_own_format(keys, inner, outer, tied):
    found = formats(tiny_llama(layers=1, tied=tied), **keys)
    assert found.pop(EMBEDDING, None) == outer
    assert found.pop(HEAD, None) == (None if tied else outer)
    assert set(found.values()) == {inner}


def test_a_tied_weight_stands_once_under_the_name_that_is_saved():
    model = tiny_llama(layers=1, tied=True)
    plan = plan_model(model, QuantConfig())
    tied = {tensor.name: tensor.modules for tensor in plan.tensors}
    assert tied[EMBEDDING] == ("model.embed_tokens", "lm_head")
    assert HEAD not in tied
    assert len(plan.tensors) == 8


def test_linear_layers_that_share_a_weight_stand_once():
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[1].weight = model[0].weight
    plan = plan_model(model, QuantConfig())
    assert [(tensor.name, tensor.modules) for tensor in plan.tensors] == [("0.weight", ("0", "1"))]
    assert plan.floats == ("0.bias", "1.bias")


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_widths_that_blocks_do_not_divide_are_refused_with_name_and_shape(family):
    if family == "llama":
        model = tiny_llama(layers=1, intermediate_size=40)
    else:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 60}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads))
    words = r"^quant.format: q4_0 has blocks of 32 .*int8_channel.*: model.layers.0.mlp.down_proj.weight \[32, 40\]$"
    with pytest.raises(ConfigError, match=words):
        plan_model(model, QuantConfig(format="q4_0"))
    assert len(plan_model(model, QuantConfig(format="int8_channel")).tensors) >= 8


def test_a_width_of_the_embedding_names_its_own_key():
    model = nn.Sequential(nn.Embedding(9, 40), nn.Linear(32, 8))
    with pytest.raises(
        ConfigError, match=r"^quant.embeddings: q8_0 .*choose int8 or none.*: 0.weight \[9, 40\]$"
    ):
        plan_model(model, QuantConfig(format="q4_0"))
    assert formats(model, format="q4_0", embeddings="none") == {"1.weight": "q4_0"}


def test_weights_are_not_read():
    with torch.device("meta"):
        model = nn.Linear(32, 8)
    assert formats(model, format="q4_0") == {"weight": "q4_0"}


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(QATError, match=r"no Linear or Embedding layer to quantise.*: LayerNorm"):
        plan_model(nn.LayerNorm(8), QuantConfig())


def test_bytes_of_the_deployed_tensors():
    model = nn.Sequential(nn.Embedding(10, 32), nn.Linear(32, 8))
    assert plan_model(model, QuantConfig(format="q4_0")).stored_bytes == 10 * 34 + 8 * 18
    assert plan_model(model, QuantConfig()).stored_bytes == 10 * 34 + 8 * 34


def test_some_tensors_of_a_plan():
    plan = plan_model(tiny_llama(layers=1), QuantConfig())
    head = plan.only([HEAD])
    assert head.names == (HEAD,)
    assert set(head.floats) == {*plan.floats, *plan.names} - {HEAD}
    with pytest.raises(QATError, match=r"no such tensor, it has .*: head"):
        plan.only(["head"])
