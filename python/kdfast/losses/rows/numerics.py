"""What every loss does to logits: computing dtype, softmax in place, checks that name the row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

OnNan = Literal["raise", "skip_row"]

BLOCK_NUMBERS = 1 << 19
"""Logits that are taken at once on a CPU."""


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64, fp32 for everything else: what losses are computed in.

    Example:
        >>> computing_dtype(torch.bfloat16)
        torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def gemm_dtype(weight: Tensor) -> torch.dtype:
    """The dtype in which hidden states meet a weight: autocast's where it is on (it leaves fp64 alone), else its own.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     gemm_dtype(torch.zeros(2)), gemm_dtype(torch.zeros(2, dtype=torch.float64))
        (torch.bfloat16, torch.float64)
    """
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def softmax_(x: Tensor) -> tuple[Tensor, Tensor]:
    """Turns x [N,V] into its softmax over the last axis, in place.

    A row whose maximum is not finite (NaN, +inf, nothing but -inf) becomes all zeros; its maximum tells it apart.

    Returns:
        the rows' maxima, and the logarithms of their sums of exp(x - maximum), both [N].

    Example:
        >>> rowmax, log_sum = softmax_(torch.full((1, 4), 7.0))
        >>> rowmax, log_sum.exp()
        (tensor([7.]), tensor([4.]))
    """
    rowmax, largest = x.new_empty(len(x)), x.new_empty(len(x))
    for rows in blocks(x):
        some = x[rows]
        torch.amax(some, 1, out=rowmax[rows])
        torch.softmax(some, 1, out=some)
        # NaN throughout where the maximum is not finite; to ask whether there is such a row would be to wait
        some.nan_to_num_(0.0)
        torch.amax(some, 1, out=largest[rows])
    # the largest probability is 1 / that sum: no second pass of exponentials is needed
    return rowmax, -largest.masked_fill_(largest == 0.0, 1.0).log_()


def blocks(x: Tensor) -> Iterator[slice]:
    """Rows of x [N,V] to take at once: so few on a CPU that they stay in its cache over several passes.

    Example:
        >>> list(blocks(torch.zeros(3, BLOCK_NUMBERS // 2)))
        [slice(0, 2, None), slice(2, 4, None)]
    """
    size = max(1, BLOCK_NUMBERS // max(1, x.shape[1])) if x.device.type == "cpu" else max(1, len(x))
    return (slice(start, start + size) for start in range(0, len(x), size))


def handle_bad_rows(bad: Tensor, rows: Tensor, nan: OnNan, what: str) -> int:
    """Raises when a row is bad, or counts the bad rows.

    Args:
        bad: [M] bool, rows that are not finite.
        rows: [M] int64, the rows' numbers in the caller's tensor.
        nan: "raise" or "skip_row".
        what: the tensor at fault, for the message.

    Raises:
        FloatingPointError: a row is bad and `nan` is "raise".
        ValueError: `nan` is something else.
    """
    if nan not in ("raise", "skip_row"):
        raise ValueError(f"nan must be 'raise' or 'skip_row': {nan!r}")
    count = int(bad.sum())
    if count and nan == "raise":
        raise FloatingPointError(f"{what} are not finite in {count} row(s): {name_rows(bad, rows)}")
    return count


def name_rows(bad: Tensor, rows: Tensor) -> str:
    """The first bad rows' numbers, for a message."""
    numbers = rows[bad].tolist()
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless the temperature is finite and above 0."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be finite and above 0: {temperature}")


def check_rows(logits: Tensor, **fields: Tensor | None) -> None:
    """Raises ValueError unless logits are [N,V] floats and every field has N rows."""
    if logits.dim() != 2 or not logits.is_floating_point():
        raise ValueError(f"logits must be floating point [N,V]: {logits.dtype} {list(logits.shape)}")
    for name, field in fields.items():
        if field is not None and (field.dim() == 0 or field.shape[0] != logits.shape[0]):
            raise ValueError(
                f"{name} must have as many rows as logits ({logits.shape[0]}): {list(field.shape)}"
            )
