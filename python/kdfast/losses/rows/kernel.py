"""How two distributions over the same classes are compared: what each divergence is made of.

A kernel sees teacher and student over the same classes (every id, or the k+1 classes of a sparse teacher). It
gives each row's value and its derivative by the student's log-probabilities; what turns that into a gradient of
the logits is the same for all and stands in `rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

OUT_OF_USE = -1e30
"""Log-probability that teacher and student both have in a class that is out of use: it adds nothing."""

FLOOR = 60.0
"""A class that one model gives -inf and the other does not is taken as exp(-60) of its likeliest id."""


class Classwise(NamedTuple):
    """Teacher p and student q over C classes, all [M,C] and finite."""

    p: Tensor
    logp: Tensor
    q: Tensor
    logq: Tensor


class Comparison(NamedTuple):
    """What a kernel gives.

    A sum over classes of p log(p/q) is off, in fp32 and 150,000 classes, by 3e-6 to either side; with `- p + q` at
    each class, whose sum is 0 but for rounding, no part of it is negative and rounding does not add up.

    Attributes:
        value: [M].
        h: [M,C], its derivative by logq, up to a multiple of q (which cancels: q sums to 1).
        h_sum: [M], the sum of h over the classes.
    """

    value: Tensor
    h: Tensor
    h_sum: Tensor


Kernel = Callable[[Classwise], Comparison]
"""Compares; it may overwrite its arguments but q, and needs not: they are as large as the logits."""


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
"""Stands for a mass that has underflowed, where its logarithm is multiplied by that mass."""
