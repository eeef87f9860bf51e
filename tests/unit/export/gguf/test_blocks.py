"""Blocks: against a slow twin, against the package `gguf` and against llama.cpp's own C functions."""

import ctypes
import struct

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast.errors import ConfigError
from kdfast.export.gguf.blocks import BLOCK_BYTES, block_type, pack, unpack
from kdfast.quantized import FORMATS, Quantized, quantize

KINDS = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "q8_0": gguf.GGMLQuantizationType.Q8_0}


def slow_bytes(one):
    """A weight's bytes, one code at a time."""
    made = bytearray()
    rows, columns = one.codes.shape
    for row in range(rows):
        for block in range(columns // 32):
            scale = one.scales[row, block if one.scales.shape[1] > 1 or columns == 32 else 0]
            codes = one.codes[row, 32 * block : 32 * block + 32].tolist()
            made += struct.pack("<e", float(scale))
            if one.format == "q4_0":
                made += bytes((codes[i] + 8) | (codes[i + 16] + 8) << 4 for i in range(16))
            else:
                made += struct.pack("32b", *codes)
    return bytes(made)


@st.composite
def quantized(draw):
    """Any codes and scales: both signs, zeros of both signs, the smallest and largest numbers of fp16."""
    kind = FORMATS[draw(st.sampled_from(sorted(FORMATS)))]
    rows, blocks = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    codes = torch.randint(
        kind.lowest,
        kind.highest + 1,
        (rows, 32 * blocks),
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.int8,
    )
    scale = st.floats(width=16, allow_nan=False, allow_infinity=False)
    count = rows * (blocks if kind.block else 1)
    scales = draw(st.lists(scale, min_size=count, max_size=count))
    return Quantized(kind.name, codes, torch.tensor(scales, dtype=torch.float16).view(rows, -1))


@settings(max_examples=60, deadline=None)
@given(quantized())
def test_equal_to_the_slow_twin_and_back(one):
    packed = pack("w", one)
    assert packed.tobytes() == slow_bytes(one)
    back = unpack(packed, block_type(one))
    assert torch.equal(back.codes, one.codes)
    wanted = one.scales.expand(-1, back.scales.shape[1]) if one.format == "int8_channel" else one.scales
    assert torch.equal(back.scales.view(torch.int16), wanted.contiguous().view(torch.int16))  # -0 stays -0
    assert torch.equal(back.dequantize(), one.dequantize())  # a row's scale in every block: the same weights


@settings(max_examples=30, deadline=None)
@given(quantized())
def test_the_package_gguf_reads_the_same_weights(one):
    kind = KINDS["q8_0" if one.format == "int8_channel" else one.format]
    assert np.array_equal(gguf.quants.dequantize(pack("w", one), kind), one.dequantize().numpy())


@pytest.mark.parametrize("format_name", sorted(KINDS))
def test_a_quantised_weight_has_the_bytes_of_the_package_gguf(format_name):
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    weight[5, :2] = torch.tensor([4.0, -4.0])  # a tie of the largest magnitude
    weight[6] = torch.arange(96) / 7 - 6
    expected = gguf.quants.quantize(weight.numpy(), KINDS[format_name])
    assert np.array_equal(pack("w", quantize(weight, format_name)), expected)


@pytest.mark.parametrize("format_name", sorted(KINDS))
def test_llama_cpps_own_functions_agree(format_name):
    pytest.importorskip("xllamacpp")
    from kdfast.llama_cpp.library import load_library

    functions = load_library().functions
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    weight[2] = 0
    weight[3, :2] = torch.tensor([-5.0, 5.0])
    source = weight.numpy()
    packed = pack("w", quantize(weight, format_name))
    theirs = np.zeros_like(packed)
    count = ctypes.c_int64(source.size)
    getattr(functions, f"quantize_row_{format_name}_ref")(
        ctypes.c_void_p(source.ctypes.data), ctypes.c_void_p(theirs.ctypes.data), count
    )
    assert np.array_equal(packed, theirs)
    values = np.zeros_like(source)
    getattr(functions, f"dequantize_row_{format_name}")(
        ctypes.c_void_p(packed.ctypes.data), ctypes.c_void_p(values.ctypes.data), count
    )
    assert np.array_equal(values, quantize(weight, format_name).dequantize().numpy())


def test_a_width_without_whole_blocks_is_refused():
    with pytest.raises(ConfigError, match=r"--type: GGUF has blocks of 32.*layer \[2, 40\]$"):
        pack("layer", quantize(torch.randn(2, 40), "int8_channel"))


def test_bytes_of_a_block():
    for name, size in BLOCK_BYTES.items():
        assert size == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
