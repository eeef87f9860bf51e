"""How two distributions over the same classes are compared: what each divergence is made of.

A kernel sees teacher and student over the same classes (every id, or the k+1 classes of a sparse teacher). It
gives each row's value and its derivative by the student's log-probabilities. `maths` turns that into a gradient of
the logits, in the same way for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

OUT_OF_USE = -1e30
"""An unused class gets this log-probability on both sides, so that it adds nothing."""

FLOOR = 60.0
"""Where only one model gives a class -inf, the class counts as exp(-60) of that model's likeliest id."""


class Classwise(NamedTuple):
    """Teacher p and student q over C classes, all [M,C] and finite."""

    p: Tensor
    logp: Tensor
    q: Tensor
    logq: Tensor


class Comparison(NamedTuple):
    """What a kernel gives.

    `h` is dD/d log q. A multiple of q may be added to it: it cancels in dD/dz. Adding `q - p` to each class's value
    keeps every summand >= 0 and changes the sum by nothing (else fp32 is off by 3e-6 at V = 150,000).

    Attributes:
        value: [M], the divergence D of each row.
        h: [M,C], the derivative of D by logq, up to a multiple of q.
        h_sum: [M], the sum of h over the classes.
    """

    value: Tensor
    h: Tensor
    h_sum: Tensor


Kernel = Callable[[Classwise], Comparison]
"""Compares. It may overwrite p, logp and logq, which saves memory: they are as large as the logits. q it must keep."""


@dataclass(frozen=True)
class Divergence:
    """One member of the family.

    Attributes:
        name: the name of the loss.
        kernel: its maths.
        non_negative: its value is at least -1e-6 for any input, in fp32 too.
        smooth: its gradient is 0 where the student equals the teacher. A distance with a kink there is not smooth.
        temperature_power: the power of the temperature T that multiplies the value, so that the gradient keeps its
            size when T grows. 2 where the gradient shrinks with 1/T^2 (as the KL family's), 1 where it does with 1/T.
    """

    name: str
    kernel: Kernel
    non_negative: bool = True
    smooth: bool = True
    temperature_power: int = 2


SMALLEST = 1e-38
"""A mass that has underflowed to 0 is replaced by this before its logarithm is taken and multiplied by the mass."""
