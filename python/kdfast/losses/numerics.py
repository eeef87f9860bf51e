"""What every loss does to logits: computing dtype, softmax in place, checks that name the row."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

OnNan = Literal["raise", "skip_row"]


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64, fp32 for everything else: what losses are computed in.

    Example:
        >>> computing_dtype(torch.bfloat16)
        torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def softmax_(x: Tensor) -> tuple[Tensor, Tensor]:
    """Turns x [N,V] into its softmax over the last axis, in place.

    A row of nothing but -inf becomes all zeros with a maximum of -inf.

    Returns:
        the rows' maxima, and the logarithms of their sums of exp(x - maximum), both [N].

    Example:
        >>> rowmax, log_sum = softmax_(torch.full((1, 4), 7.0))
        >>> rowmax, log_sum.exp()
        (tensor([7.]), tensor([4.]))
    """
    rowmax = x.amax(1)
    torch.softmax(x, 1, out=x)
    x[rowmax == -math.inf] = 0.0
    # the largest probability is 1 / that sum: no second pass of exponentials is needed
    return rowmax, -x.amax(1).log().nan_to_num_(neginf=0.0)


def handle_bad_rows(bad: Tensor, rows: Tensor, nan: OnNan, what: str) -> int:
    """Raises when a row is bad, or counts the bad rows.

    Args:
        bad: [M] bool.
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
