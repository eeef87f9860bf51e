"""The number formats of deployed weights, as pure functions: codes q, stored scales s, and the weights q * s.

| format | scale | codes |
|---|---|---|
| `int8_channel` | one a row: absmax / 127, rounded to fp16 and at least 6.2e-5 | w / s, half to even, -127..127 |
| `q4_0` | one a block of 32: (the first element of largest magnitude) / -8 | trunc(w / d + 8.5) - 8, -8..7 |
| `q8_0` | one a block of 32: absmax / 127 | w / d, half away from zero, -127..127 |

`q4_0` and `q8_0` follow llama.cpp's reference functions: the codes come from the scale d in fp32 and its fp32
reciprocal; fp16(d) is stored. A block whose d is 0 in fp16 has the codes 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.config.quant import FormatName
from kdfast.errors import QATError

INT8_MIN_SCALE = 1041 * 2.0**-24
"""The smallest fp16 number that is at least 6.2e-5. A row of zeros needs a scale; below 6.1e-5 fp16 loses digits."""

_BELOW_HALF = 0.5 - 2.0**-25
"""The largest fp32 number below 0.5. Added before truncation it rounds as C's roundf; 0.5 would round 0.49999997 up."""

_CHUNK = 2**18
"""Weights that a pass on the CPU takes at once, so that intermediate results stay in the cache."""


@dataclass(frozen=True)
class Quantized:
    """A weight as it ships.

    Attributes:
        format: the name of its format.
        codes: [out,in] int8.
        scales: [out,in/block] fp16, the stored scales; [out,1] for `int8_channel`.
    """

    format: FormatName
    codes: Tensor
    scales: Tensor

    @property
    def block(self) -> int:
        """Weights that share a scale."""
        return FORMATS[self.format].block_of(self.codes.shape[1])

    def dequantize(self) -> Tensor:
        """The weights q * s, [out,in] fp32. The product is exact."""
        rows, columns = self.codes.shape
        values = self.codes.to(torch.float32).view(rows, self.scales.shape[1], self.block)
        return values.mul_(self.scales.to(torch.float32)[..., None]).view(rows, columns)


Grid = Callable[[Tensor, Tensor], Tensor]
"""Blocks [M,b] and a buffer [M,b] that receives their codes as fp32; gives the stored scales [M,1] as fp32."""


@dataclass(frozen=True)
class Format:
    """A number format.

    Attributes:
        name: as `quant.format` spells it.
        block: weights of a row that share a scale; 0 = the whole row.
        lowest: the lowest code.
        highest: the highest code.
        code_bits: bits of a code in the deployed file.
        grid: its rule.
    """

    name: FormatName
    block: int
    lowest: int
    highest: int
    code_bits: int
    grid: Grid

    def block_of(self, columns: int) -> int:
        """Weights that share a scale, in a weight of that many columns."""
        return self.block or columns

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes of a deployed weight: codes and scales.

        Example:
            >>> FORMATS["q4_0"].stored_bytes(1, 32)
            18
        """
        scales = rows * (columns // self.block_of(columns))
        return rows * columns * self.code_bits // 8 + 2 * scales


def _through_fp16(scales: Tensor) -> Tensor:
    return scales.to(torch.float16).to(torch.float32)


def _over_127(largest: Tensor) -> Tensor:
    # A tensor as divisor: with a Python number CUDA multiplies by its reciprocal, which is off by one bit at times.
    return largest / torch.full_like(largest, 127.0)


def _int8_codes(blocks: Tensor, scales: Tensor, codes: Tensor) -> None:
    torch.div(blocks, scales, out=codes)
    codes.round_().clamp_(-127, 127)  # round_ rounds half to even


def _int8_grid(blocks: Tensor, codes: Tensor) -> Tensor:
    scales = _through_fp16(_over_127(blocks.abs().amax(1, keepdim=True))).clamp_(min=INT8_MIN_SCALE)
    _int8_codes(blocks, scales, codes)
    return scales


def _reciprocal(exact: Tensor, stored: Tensor) -> Tensor:
    """1 / d, and 0 where d is 0 once it is stored (1 / d may be infinite there)."""
    return (1.0 / exact).masked_fill_(stored == 0, 0.0)


def _truncate_(codes: Tensor) -> Tensor:
    # `trunc_` is ten times slower on CPUs. A number beyond int8 has a NaN or infinite scale, so the weight shows it.
    return codes.copy_(codes.to(torch.int8))


def _q8_0_grid(blocks: Tensor, codes: Tensor) -> Tensor:
    exact = _over_127(blocks.abs().amax(1, keepdim=True))
    stored = _through_fp16(exact)
    torch.mul(blocks, _reciprocal(exact, stored), out=codes)
    half = torch.full((), _BELOW_HALF, device=codes.device)
    _truncate_(codes.add_(torch.copysign(half, codes)))
    return stored


def _extreme(blocks: Tensor) -> Tensor:
    """[M,1] the first element of largest magnitude of each block."""
    if blocks.device.type != "cpu":
        return blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    # `argmax` over short rows is slow on CPUs. It is asked only where both signs reach the largest magnitude.
    highest, lowest = blocks.amax(1, keepdim=True), blocks.amin(1, keepdim=True)
    extreme = torch.where(highest > -lowest, highest, lowest)
    tied = (highest == -lowest)[:, 0]
    if bool(tied.any()):
        some = blocks[tied]
        extreme[tied] = some.gather(1, some.abs().argmax(1, keepdim=True))
    return extreme


def _q4_0_grid(blocks: Tensor, codes: Tensor) -> Tensor:
    exact = _extreme(blocks) / -8.0
    stored = _through_fp16(exact)
    torch.mul(blocks, _reciprocal(exact, stored), out=codes)
    # A product and a sum of their own: fused they would round once, and ties would fall otherwise than in llama.cpp.
    _truncate_(codes.add_(8.5).clamp_(max=15.0)).sub_(8.0)
    return stored


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("int8_channel", 0, -127, 127, 8, _int8_grid),
        Format("q4_0", 32, -8, 7, 4, _q4_0_grid),
        Format("q8_0", 32, -127, 127, 8, _q8_0_grid),
    )
}
"""Every format by its name."""


def _checked(weight: Tensor, format_name: str, scales: Tensor | None) -> Format:
    if format_name not in FORMATS:
        raise ValueError(f"format_name must be one of {', '.join(FORMATS)}: {format_name!r}")
    found = FORMATS[format_name]
    if weight.dim() != 2 or weight.dtype != torch.float32:
        raise ValueError(f"weight must be [out,in] float32: {list(weight.shape)} {weight.dtype}")
    columns = weight.shape[1]
    if columns == 0 or columns % found.block_of(columns):
        raise ValueError(
            f"{format_name} needs rows of a multiple of {found.block or 1}: {list(weight.shape)}"
        )
    if scales is not None and (found.block or scales.shape != (len(weight), 1)):
        raise ValueError(
            f"only int8_channel takes scales, one a row: {format_name} {list(weight.shape)}, {list(scales.shape)}"
        )
    return found


def _passes(weight: Tensor) -> Iterator[slice]:
    rows = len(weight) if weight.device.type != "cpu" else max(_CHUNK // weight.shape[1], 1)
    return (slice(start, start + rows) for start in range(0, len(weight), max(rows, 1)))


def _codes_of_rows(rows: Tensor, found: Format, scales: Tensor | None, codes: Tensor) -> Tensor:
    """Fills codes [n,in] as fp32, gives the stored scales [n,groups] as fp32."""
    block = found.block_of(rows.shape[1])
    if scales is not None:
        stored = scales.to(torch.float32)
        _int8_codes(rows, stored, codes)
        return stored
    return found.grid(rows.reshape(-1, block), codes.view(-1, block)).view(len(rows), -1)


@torch.no_grad()
def quantize(weight: Tensor, format_name: str, *, scales: Tensor | None = None) -> Quantized:
    """A weight's codes and stored scales.

    Args:
        weight: [out,in] float32.
        format_name: a name in `FORMATS`.
        scales: [out,1] fp16, the rows' scales where they are frozen; only for `int8_channel`. None = the rule's.

    Raises:
        ValueError: shape, dtype or format name do not fit.

    Example:
        >>> made = quantize(torch.tensor([[1.0, -2.0] * 16]), "q4_0")
        >>> made.codes[0, :2].tolist(), made.scales.tolist(), made.dequantize()[0, :2].tolist()
        ([4, -8], [[0.25]], [1.0, -2.0])
    """
    found = _checked(weight, format_name, scales)
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    stored = [torch.empty(0, weight.shape[1] // found.block_of(weight.shape[1]), device=weight.device)]
    for some in _passes(weight):
        rows = weight[some]
        exact = torch.empty(rows.shape, device=rows.device)
        stored.append(_codes_of_rows(rows, found, None if scales is None else scales[some], exact))
        codes[some] = exact.to(torch.int8)
    return Quantized(found.name, codes, torch.cat(stored).to(torch.float16))


@torch.no_grad()
def rounded_weight(
    weight: Tensor,
    format_name: str,
    *,
    scales: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The weights q * s: equal to `quantize(weight, format_name).dequantize()`, but without the codes as integers.

    A zero may have the other sign. It does not wait for the device. Where a weight is not finite, the result is not.

    Args:
        weight: as in `quantize`.
        format_name: as in `quantize`.
        scales: as in `quantize`.
        out: [out,in] float32, contiguous, that is overwritten; None = a new tensor.

    Returns:
        [out,in] float32, without a graph.

    Raises:
        ValueError: shape, dtype or format name do not fit.
    """
    found = _checked(weight, format_name, scales)
    out = torch.empty(weight.shape, device=weight.device) if out is None else out
    for some in _passes(weight):
        codes = out[some]
        stored = _codes_of_rows(weight[some], found, None if scales is None else scales[some], codes)
        codes.view(len(codes), stored.shape[1], -1).mul_(stored[..., None])
    return out


def int8_channel(weight: Tensor) -> Quantized:
    """`quantize` to int8 with one scale a row.

    Example:
        >>> made = int8_channel(torch.tensor([[127.0, -3.5, 0.0]]))
        >>> made.codes.tolist(), made.scales.tolist()
        ([[127, -4, 0]], [[1.0]])
    """
    return quantize(weight, "int8_channel")


def q4_0(weight: Tensor) -> Quantized:
    """`quantize` to llama.cpp's Q4_0.

    Example:
        >>> made = q4_0(torch.tensor([[8.0, -8.0] + [1.0] * 30]))  # 8 comes first: d is -1, and -8 is cut to 7 d
        >>> made.codes[0, :3].tolist(), made.scales.tolist()
        ([-8, 7, -1], [[-1.0]])
    """
    return quantize(weight, "q4_0")


def q8_0(weight: Tensor) -> Quantized:
    """`quantize` to llama.cpp's Q8_0.

    Example:
        >>> made = q8_0(torch.tensor([[127.0, -2.5] + [0.0] * 30]))
        >>> made.codes[0, :2].tolist(), made.scales.tolist()
        ([127, -3], [[1.0]])
    """
    return quantize(weight, "q8_0")


def check_finite(name: str, quantized: Quantized) -> None:
    """Checks that every scale can be stored.

    Args:
        name: the tensor's name, for the message.
        quantized: its codes and scales.

    Raises:
        QATError: a scale is infinite or NaN in fp16; names the tensor, the row and the block.
    """
    bad = ~torch.isfinite(quantized.scales)
    if bool(bad.any()):
        row, group = torch.nonzero(bad)[0].tolist()
        first = group * quantized.block
        raise QATError(
            f"{name}: its weights are too large or not finite, so {quantized.format} cannot store the scale of row "
            f"{row}, columns {first} to {first + quantized.block - 1}; train it again with a lower learning rate, or "
            f"give the tensor another format: {float(quantized.scales[row, group])}"
        )
