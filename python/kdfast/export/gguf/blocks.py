"""Codes and scales as bytes of a GGUF file, and back.

| type | a block of 32 weights |
|---|---|
| Q4_0 | the scale as fp16; 16 bytes: q + 8 of weight i in the low four bits, of weight i + 16 in the high ones |
| Q8_0 | the scale as fp16; 32 codes as int8 |

`int8_channel` has one scale a row. As Q8_0 it stands in every block of the row: the weights are the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kdfast.errors import ConfigError
from kdfast.quantized import Quantized

BLOCK = 32
"""Weights in a block."""

BlockType = Literal["Q4_0", "Q8_0"]
"""The types of blocks, as GGUF calls them."""

BLOCK_BYTES: dict[BlockType, int] = {"Q4_0": 18, "Q8_0": 34}
"""Bytes of a block: two of the scale, then the codes."""


def block_type(quantized: Quantized) -> BlockType:
    """The type that holds a format's codes and scales as they are."""
    return "Q4_0" if quantized.format == "q4_0" else "Q8_0"


def pack(name: str, quantized: Quantized) -> NDArray[np.uint8]:
    """Bytes of a quantised weight.

    Args:
        name: its name, for the message.
        quantized: codes [out,in] and scales.

    Returns:
        [out, in/32 * bytes of a block].

    Raises:
        ConfigError: blocks of 32 do not divide its width.

    Example:
        >>> from kdfast.quantized import q4_0
        >>> pack("w", q4_0(torch.tensor([[-8.0] + [0.0] * 31])))[0, :4].tolist()  # scale 1, codes -8 and 0
        [0, 60, 128, 136]
    """
    codes = quantized.codes.cpu().contiguous().numpy()
    rows, columns = codes.shape
    if columns % BLOCK:
        raise ConfigError(
            f"--type: GGUF has blocks of {BLOCK} weights, which do not divide the width of a tensor; export the "
            f"student with --target hf: {name} {[rows, columns]}"
        )
    scales = quantized.scales.cpu().contiguous().numpy().astype("<f2", copy=False)
    blocks = columns // BLOCK
    kind = block_type(quantized)
    packed = np.empty((rows, blocks, BLOCK_BYTES[kind]), dtype=np.uint8)
    shared = np.ascontiguousarray(np.broadcast_to(scales, (rows, blocks)))  # [out,1] -> [out,in/32]
    packed[:, :, :2] = shared.view(np.uint8).reshape(rows, blocks, 2)
    if kind == "Q8_0":
        packed[:, :, 2:] = codes.view(np.uint8).reshape(rows, blocks, BLOCK)
    else:
        halves = (codes + 8).view(np.uint8).reshape(rows, blocks, 2, BLOCK // 2)
        np.bitwise_or(halves[:, :, 0], halves[:, :, 1] << 4, out=packed[:, :, 2:])
    return packed.reshape(rows, -1)


def unpack(packed: NDArray[np.uint8], kind: BlockType) -> Quantized:
    """Codes and scales of a weight's bytes.

    Args:
        packed: [out, in/32 * bytes of a block].
        kind: the blocks' type.

    Example:
        >>> from kdfast.quantized import q8_0
        >>> made = q8_0(torch.tensor([[127.0, -2.0] + [0.0] * 30]))
        >>> unpack(pack("w", made), "Q8_0").codes[0, :2].tolist()
        [127, -2]
    """
    rows = len(packed)
    blocks = packed.reshape(rows, -1, BLOCK_BYTES[kind])
    scales = (
        np.ascontiguousarray(blocks[:, :, :2]).view("<f2").reshape(rows, -1).astype(np.float16, copy=False)
    )
    stored = blocks[:, :, 2:]
    if kind == "Q8_0":
        codes = np.ascontiguousarray(stored).view(np.int8)
    else:
        nibbles = np.concatenate((stored & 15, stored >> 4), axis=2)  # [out,in/32,32]
        codes = nibbles.view(np.int8) - np.int8(8)
    name: Literal["q4_0", "q8_0"] = "q8_0" if kind == "Q8_0" else "q4_0"
    return Quantized(name, torch.from_numpy(codes.reshape(rows, -1)), torch.from_numpy(scales.copy()))
