"""The number formats: against slow twins, against `gguf.quants` byte for byte, and what is special about each."""

import gguf.quants
import naive_quantize
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast.errors import QATError
from kdfast.quantized.formats import (
    FORMATS,
    INT8_MIN_SCALE,
    Quantized,
    _extreme,
    check_finite,
    int8_channel,
    q4_0,
    q8_0,
    quantize,
    rounded_weight,
)

GGUF = {"q4_0": gguf.quants.Q4_0, "q8_0": gguf.quants.Q8_0}

SIZES = (0.0, 1e-45, 1e-38, 1e-20, 2.0**-25, 3e-8, 6e-5, 1e-3, 1.0, 300.0, 6e4)
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 0.25, -0.75, 0.9999999, 1.5 / 127, -2.5 / 127, 1.4999999 / 127)


@st.composite
def _blocks(draw):
    """[2,32] fp32: zero, tiny, denormal and large blocks; extremes of both signs, values between two codes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    rows = []
    for _ in range(2):
        row = rng.uniform(-1, 1, 32)
        for value in draw(st.lists(st.sampled_from(SPECIAL), max_size=4)):
            row[rng.integers(32)] = value
        rows.append(np.float32(draw(st.sampled_from(SIZES))) * row.astype(np.float32))
    return torch.from_numpy(np.stack(rows))


def packed(quantized):
    """[M,18] or [M,34] uint8: the blocks as llama.cpp lays them out."""
    scales = quantized.scales.numpy().reshape(-1, 1).view(np.uint8)
    codes = quantized.codes.numpy().reshape(-1, 32)
    if quantized.format == "q4_0":
        halves = (codes + 8).astype(np.uint8).reshape(-1, 2, 16)
        codes = halves[:, 0] | (halves[:, 1] << 4)
    return np.concatenate([scales, codes.view(np.uint8)], axis=1)


def bits(tensor):
    return tensor.contiguous().view(torch.int32)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40)
@given(weight=_blocks())
def test_equal_to_the_slow_twin(name, weight):
    made = quantize(weight, name)
    for row, codes, scales in zip(weight.tolist(), made.codes.tolist(), made.scales.tolist(), strict=True):
        assert (codes, scales[0]) == naive_quantize.RULES[name](row)
    assert torch.equal(rounded_weight(weight, name), made.dequantize())


@pytest.mark.parametrize("name", GGUF)
@settings(max_examples=40)
@given(weight=_blocks())
def test_equal_to_gguf_on_hard_blocks(name, weight):
    _assert_equal_to_gguf(weight, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", GGUF)
def test_a_million_random_blocks_equal_gguf_byte_for_byte(name):
    rng = np.random.default_rng(0)
    for _ in range(10):
        weight = rng.standard_normal((100_000, 32), dtype=np.float32)
        weight *= np.exp2(rng.integers(-24, 18, (len(weight), 1))).astype(np.float32)
        ties = weight[::7]  # multiples of an eighth of the extreme: codes that fall between two
        ties[:] = np.round(ties / np.abs(ties).max(1, keepdims=True) * 16) / 16
        weight[::11] *= np.float32(1e-30)
        weight[::13] = 0
        _assert_equal_to_gguf(torch.from_numpy(weight), name)


def _assert_equal_to_gguf(weight, name):
    """Byte for byte; only the codes of blocks whose scale is 0 in fp16 may differ, since they multiply by 0."""
    made = quantize(weight, name)
    with np.errstate(all="ignore"):
        right = GGUF[name].quantize_blocks(weight.numpy().reshape(-1, 32))
    ours, zero = packed(made), made.scales.numpy().reshape(-1) == 0
    assert np.array_equal(ours[:, :2], right[:, :2])
    assert np.array_equal(ours[~zero], right[~zero])
    assert not made.codes.view(-1, 32)[torch.from_numpy(zero)].any()
    if not zero.any():
        assert np.array_equal(GGUF[name].dequantize_blocks(right), made.dequantize().numpy().reshape(-1, 32))


@pytest.mark.parametrize("name", GGUF)
@settings(max_examples=40)
@given(weight=_blocks())
def test_blocks_quantise_to_themselves(name, weight):
    once = quantize(weight, name)
    again = quantize(once.dequantize(), name)
    assert torch.equal(again.scales, once.scales)
    assert torch.equal(again.codes, once.codes)


def test_int8_rounds_half_to_even_and_divides_by_the_rounded_scale():
    made = int8_channel(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]]))
    assert made.codes.tolist() == [[127, 0, 2, 2, 0, -2, -127]]
    # 100 / 127 is 0.78740, its fp16 number 0.78760: 100 / 0.78760 = 126.97, and 0.3939 / 0.78760 = 0.50013
    made = int8_channel(torch.tensor([[100.0, 0.3939]]))
    assert made.scales.item() == np.float16(100 / 127)
    assert made.codes.tolist() == [[127, 1]]


def test_int8_clamps_where_the_scale_was_rounded_down():
    weight = torch.tensor([[127 * 1.00048, -127 * 1.00048]])  # the fp16 numbers around 1 are 0.00098 apart
    made = int8_channel(weight)
    assert made.scales.item() == 1.0
    assert made.codes.tolist() == [[127, -127]]


def test_int8_rows_of_zeros_and_tiny_rows_have_a_usable_scale():
    made = int8_channel(torch.tensor([[0.0, 0.0], [1e-5, -1e-45]]))
    assert made.scales.flatten().tolist() == [INT8_MIN_SCALE] * 2
    assert made.codes.tolist() == [[0, 0], [0, 0]]
    assert np.float16(INT8_MIN_SCALE) == INT8_MIN_SCALE >= 6.2e-5 > INT8_MIN_SCALE - 2.0**-24  # its neighbour


def test_q8_0_rounds_half_away_from_zero():
    weight = torch.zeros(1, 32)
    weight[0, :6] = torch.tensor([127.0, 0.5, -0.5, 2.5, -2.5, 0.49999997])
    assert q8_0(weight).codes[0, :6].tolist() == [127, 1, -1, 3, -3, 0]


def test_q4_0_takes_the_first_of_two_extremes_and_its_sign():
    weight = torch.zeros(2, 32)
    weight[0, 3], weight[0, 5] = -4.0, 4.0
    weight[1, 3], weight[1, 5] = 4.0, -4.0
    made = q4_0(weight)
    assert made.scales.flatten().tolist() == [0.5, -0.5]
    assert made.codes[:, [3, 5]].tolist() == [[-8, 7], [-8, 7]]
    assert made.dequantize()[:, [3, 5]].tolist() == [[-4.0, 3.5], [4.0, -3.5]]


def test_q4_0_block_whose_scale_underflows_is_zero():
    weight = torch.full((1, 32), 2.0**-22)  # d = -2^-25, half of the smallest fp16 number
    made = q4_0(weight)
    assert made.scales.item() == 0
    assert not made.codes.any()
    assert not rounded_weight(weight, "q4_0").any()


@settings(max_examples=40)
@given(weight=_blocks())
def test_both_ways_to_find_the_extreme_agree(weight):
    first = weight.gather(1, weight.abs().argmax(1, keepdim=True))
    assert torch.equal(bits(_extreme(weight)), bits(first))


def test_rows_do_not_depend_on_their_neighbours_or_on_how_many_there_are():
    torch.manual_seed(0)
    weight = torch.randn(2**18 // 64 + 5, 64)  # more than one pass
    for name in FORMATS:
        whole, part = quantize(weight, name), quantize(weight[-7:], name)
        assert torch.equal(whole.codes[-7:], part.codes)
        assert torch.equal(whole.scales[-7:], part.scales)
        out = torch.empty_like(weight)
        assert rounded_weight(weight, name, out=out) is out
        assert torch.equal(out, whole.dequantize())
        turned = weight.T.contiguous().T  # not contiguous
        assert torch.equal(rounded_weight(turned, name), out)
        empty = quantize(weight[:0], name)
        assert empty.codes.shape == (0, 64)
        assert empty.dequantize().shape == (0, 64)


def test_frozen_scales_are_used_as_they_are():
    weight, scales = torch.tensor([[3.0, -300.0]]), torch.tensor([[2.0]], dtype=torch.float16)
    made = quantize(weight, "int8_channel", scales=scales)
    assert made.codes.tolist() == [[2, -127]]
    assert torch.equal(made.scales, scales)
    assert rounded_weight(weight, "int8_channel", scales=scales).tolist() == [[4.0, -254.0]]


@pytest.mark.parametrize(
    ("name", "largest", "words"),
    [
        ("int8_channel", 127 * 65536.0, "row 1, columns 0 to 63"),
        ("q8_0", 127 * 65536.0, "row 1, columns 32 to 63"),
        ("q4_0", -8 * 65536.0, "row 1, columns 32 to 63"),
        ("q4_0", float("nan"), "row 1, columns 32 to 63"),
        ("int8_channel", float("inf"), "row 1, columns 0 to 63"),
    ],
)
def test_a_scale_that_fp16_cannot_hold_is_refused_by_name(name, largest, words):
    weight = torch.ones(2, 64)
    weight[1, 40] = largest
    with pytest.raises(QATError, match=rf"^layer.weight: its weights are too large.*{name}.*{words}"):
        check_finite("layer.weight", quantize(weight, name))
    assert not torch.isfinite(rounded_weight(weight, name)).all()
    check_finite("layer.weight", quantize(torch.full((1, 64), 8 * 65504.0), name))


@pytest.mark.parametrize(
    ("weight", "name", "words"),
    [
        (torch.ones(2, 40), "q4_0", r"q4_0 needs rows of a multiple of 32: \[2, 40\]"),
        (torch.ones(2, 0), "int8_channel", "multiple of 1"),
        (torch.ones(32), "q8_0", r"\[out,in\] float32"),
        (torch.ones(2, 32, dtype=torch.bfloat16), "q8_0", "bfloat16"),
        (torch.ones(2, 32), "q5_1", "format_name must be one of int8_channel, q4_0, q8_0: 'q5_1'"),
    ],
)
def test_what_does_not_fit_is_refused(weight, name, words):
    with pytest.raises(ValueError, match=words):
        quantize(weight, name)


def test_scales_of_blocks_cannot_be_given():
    with pytest.raises(ValueError, match="only int8_channel takes scales"):
        quantize(torch.ones(2, 32), "q4_0", scales=torch.ones(2, 1, dtype=torch.float16))


def test_stored_bytes():
    assert [FORMATS[name].stored_bytes(3, 64) for name in ("q4_0", "q8_0", "int8_channel")] == [
        3 * 2 * 18, 3 * 2 * 34, 3 * (64 + 2),
    ]  # fmt: skip
    assert Quantized("q4_0", torch.zeros(1, 64, dtype=torch.int8), torch.zeros(1, 2)).block == 32
