"""Names and rows: each family's tensors, against the map of the package `gguf`, and rows against a slow twin."""

import gguf
import pytest
import torch
from export_students import FAMILIES, tiny_student_model

from kdfast.errors import ConfigError
from kdfast.export.gguf.families import read_shape
from kdfast.export.gguf.tensor_map import gguf_name, row_order


def shape_of(model, directory):
    model.config.save_pretrained(directory)
    return read_shape(directory)


def slow_order(heads, width):
    """llama.cpp's rows 2i and 2i + 1 of a head are rows i and i + half of it."""
    order = []
    for head in range(heads):
        for i in range(width // 2):
            order += [head * width + i, head * width + i + width // 2]
    return order


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_names_are_those_of_the_package_gguf(tmp_path, family, tied):
    model = tiny_student_model(family, tied=tied)
    shape = shape_of(model, tmp_path)
    arch = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == shape.family.arch)
    theirs = gguf.get_tensor_name_map(arch, shape.layers)
    names = [name for name, _ in model.named_parameters()]
    made = [gguf_name(name, shape) for name in names]
    assert made == [theirs.get_name(name, try_suffixes=(".weight", ".bias")) for name in names]
    assert len(set(made)) == len(made)
    assert ("output.weight" in made) is not tied


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_move_where_llama_cpp_turns_neighbours(tmp_path, family):
    model = tiny_student_model(family)
    shape = shape_of(model, tmp_path)
    for name, parameter in model.named_parameters():
        order = row_order(name, shape)
        heads = 4 if ".q_proj." in name else 2 if ".k_proj." in name else 0
        if heads and family in ("llama", "mistral", "smollm3"):
            assert order.tolist() == slow_order(heads, 16)
            assert len(order) == len(parameter)
        else:
            assert order is None


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "model.layers.0.self_attn.q_norm.weight"),
        ("qwen3", "model.layers.0.self_attn.q_proj.bias"),
        ("qwen2", "model.layers.1.mlp.up_proj.bias"),
        ("llama", "model.layers.0.mlp.experts.0.weight"),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("llama", "lm_head.bias"),
        ("llama", "model.visual.weight"),
    ],
)
def test_a_tensor_that_llama_cpp_does_not_read_is_refused(tmp_path, family, name):
    shape = shape_of(tiny_student_model(family), tmp_path)
    with pytest.raises(ConfigError, match=f"reads no such tensor of a {family}.*{name}$"):
        gguf_name(name, shape)


def test_all_biases_of_a_llama(tmp_path):
    model = tiny_student_model(attention_bias=True, mlp_bias=True)
    shape = shape_of(model, tmp_path)
    assert gguf_name("model.layers.1.self_attn.o_proj.bias", shape) == "blk.1.attn_output.bias"
    assert torch.equal(
        row_order("model.layers.0.self_attn.q_proj.bias", shape),
        row_order("model.layers.0.self_attn.q_proj.weight", shape),
    )
