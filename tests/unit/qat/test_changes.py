"""Codes that change: counted since the beginning, swinging ones, blocks whose scale turns its sign."""

import pytest
import torch
from torch import nn

from kdfast.config.quant import QuantConfig
from kdfast.errors import QATError
from kdfast.qat import CodeWatch, apply_qat_to_model


def layer_of(values, name="q4_0"):
    layer = nn.Linear(32, 1, bias=False)
    layer.weight = nn.Parameter(torch.zeros(1, 32))
    put(layer, values)
    return apply_qat_to_model(layer, QuantConfig(format=name))


def put(layer, values):
    with torch.no_grad():
        layer.weight[0, : len(values)] = torch.tensor(values)


def test_codes_that_swing_are_told_from_those_that_move_on():
    layer = layer_of([-8.0, 1.0, 1.0])
    watch = CodeWatch(layer)
    still = watch.look(layer)
    assert (still.codes, still.blocks, still.changed, still.flips, still.returns) == (32, 1, 0, 0, 0)
    put(layer, [-8.0, 2.0, 2.0])
    moved = watch.look(layer)
    assert (moved.changed, moved.flips, moved.returns, moved.sign_changes) == (2, 2, 0, 0)
    put(layer, [-8.0, 1.0, 3.0])
    swung = watch.look(layer)
    assert (swung.changed, swung.flips, swung.returns) == (1, 2, 1)
    assert swung.to_json()["changed_fraction"] == 1 / 32


def test_a_block_that_turns_its_sign_counts_once_and_its_steady_weights_do_not():
    layer = layer_of([-8.0, 7.0, 2.0])  # d = 1
    watch = CodeWatch(layer)
    put(layer, [-7.0, 8.0, 2.0])  # d = -1: the codes 7, -8, -2 are 7, -8, -2 times -1
    found = watch.look(layer)
    assert found.sign_changes == 1
    assert found.changed == 2


def test_what_is_remembered_survives_a_checkpoint():
    layer = layer_of([-8.0, 1.0])
    watch = CodeWatch(layer)
    put(layer, [-8.0, 2.0])
    watch.look(layer)
    other = CodeWatch(layer)
    other.load_state_dict(watch.state_dict())
    put(layer, [-8.0, 1.0])
    assert other.look(layer) == watch.look(layer)
    with pytest.raises(QATError, match="are of another model: b"):
        other.load_state_dict({"b": torch.ones(1)})


def test_another_model_is_refused():
    watch = CodeWatch(layer_of([1.0]))
    with pytest.raises(QATError, match="not under quantisation"):
        watch.look(nn.Linear(2, 2))
    with pytest.raises(QATError, match="quantises other tensors"):
        watch.look(apply_qat_to_model(nn.Sequential(nn.Linear(32, 1)), QuantConfig()))
