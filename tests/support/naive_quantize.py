"""Slow twins of the number formats: one weight at a time, each step rounded to fp32 or fp16 as llama.cpp rounds it."""

import math
import struct
from fractions import Fraction

import numpy as np

INT8_FLOOR = Fraction(1041, 2**24)


def f32(value):
    """The fp32 number next to a float; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def f16(value):
    """The fp16 number next to it."""
    try:
        return struct.unpack("<e", struct.pack("<e", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def half_away(value):
    """Rounds as C's roundf."""
    return math.copysign(math.floor(Fraction(abs(value)) + Fraction(1, 2)), value)


def int8_row(row):
    """Codes and scale of a row."""
    scale = max(f16(f32(Fraction(max(abs(w) for w in row)) / 127)), float(INT8_FLOOR))
    return [max(-127, min(127, round(Fraction(f32(Fraction(w) / Fraction(scale)))))) for w in row], scale


def q8_0_block(block):
    """Codes and scale of a block."""
    exact = f32(Fraction(max(abs(w) for w in block)) / 127)
    stored = f16(exact)
    inverse = f32(1 / Fraction(exact)) if stored else 0.0
    return [int(half_away(f32(Fraction(w) * Fraction(inverse)))) for w in block], stored


def q4_0_block(block):
    """Codes and scale of a block."""
    extreme = max(block, key=abs)  # the first of the largest
    exact = f32(Fraction(extreme) / -8)
    stored = f16(exact)
    inverse = f32(1 / Fraction(exact)) if stored else 0.0
    shifted = [f32(Fraction(f32(Fraction(w) * Fraction(inverse))) + Fraction(17, 2)) for w in block]
    return [min(15, math.trunc(x)) - 8 for x in shifted], stored


RULES = {"int8_channel": int8_row, "q8_0": q8_0_block, "q4_0": q4_0_block}
