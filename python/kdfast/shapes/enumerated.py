"""The enumerated shapes: the shape of a row, the probability of a shape at a step, the share of padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probs = Sequence[float] | Literal["natural", "production"] | None

PRODUCTION_MIX: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    2: (0.7, 0.3),
    3: (0.6, 0.3, 0.1),
    4: (0.5, 0.3, 0.15, 0.05),
}
"""Default probabilities by number of shapes, shortest shape first."""

SHAPE_STREAM, ROW_STREAM = 1, 2
"""Keys that make the random numbers of shapes independent of those of row orders."""


def random_words(count: int, *key: int) -> NDArray[np.uint64]:
    """Random 64-bit words that depend on the key alone.

    numpy guarantees this stream for all its versions; it does not guarantee that of `Generator`'s methods.
    """
    words: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)
    return words


def check_shapes(shapes: Sequence[int]) -> tuple[int, ...]:
    """The shapes as a tuple; raises ValueError unless they are positive, sorted and unique."""
    checked = tuple(int(shape) for shape in shapes)
    if not checked or checked[0] < 1 or any(b <= a for a, b in pairwise(checked)):
        raise ValueError(f"shapes must be positive, sorted and unique: {list(shapes)}")
    return checked


def assign_shapes(lengths: Sequence[int] | NDArray[Any], shapes: Sequence[int]) -> Ints:
    """The index of the smallest shape that holds each row, or -1 where none does.

    Args:
        lengths: [n] tokens of each row; -1 for a row that is not to be used.
        shapes: sorted and unique.

    Returns:
        [n] int64.

    Example:
        >>> assign_shapes([5, 8, 9, 17, -1], [8, 16]).tolist()
        [0, 0, 1, -1, -1]
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    index = np.searchsorted(np.array(check_shapes(shapes)), lengths, side="left")
    return np.where((index < len(shapes)) & (lengths > 0), index, -1).astype(np.int64)


def _base_probabilities(shapes: tuple[int, ...], probs: Probs) -> Floats:
    if probs is None or probs == "production":
        if len(shapes) not in PRODUCTION_MIX:
            raise ValueError(f"probs must be given: there is no production mix for {len(shapes)} shapes")
        probs = PRODUCTION_MIX[len(shapes)]
    if isinstance(probs, str):
        raise ValueError(f"probs must be 'production' or numbers here: {probs!r}")
    base = np.asarray(probs, dtype=np.float64)
    if base.shape != (len(shapes),) or not np.isfinite(base).all() or (base < 0).any() or base.sum() == 0:
        raise ValueError(f"probs must be {len(shapes)} finite numbers >= 0, not all 0: {list(probs)}")
    return base


def shape_probabilities(
    shapes: Sequence[int],
    probs: Probs = None,
    *,
    step: int = 0,
    upweight_every: int = 0,
    upweight_factor: float = 2.0,
    available: Sequence[bool] | None = None,
) -> Floats:
    """The probability of each shape at one step.

    Args:
        shapes: sorted and unique.
        probs: one number per shape, or None or "production" for the production mix.
        step: the optimiser step, from 0.
        upweight_every: the rarest shape is made likelier every N steps (at steps N, 2N, ...); 0 means never.
        upweight_factor: by how much, before all are divided by their sum.
        available: False for a shape that has no rows; None means that every shape has rows.

    Returns:
        [number of shapes] float64, adding up to 1.

    Raises:
        ValueError: a value out of range, or no shape with both rows and a probability.

    Example:
        >>> shape_probabilities([512, 1024, 2048, 4096]).tolist()
        [0.5, 0.3, 0.15, 0.05]
        >>> shape_probabilities([512, 1024], [3, 1], step=100, upweight_every=100).tolist()
        [0.6, 0.4]
    """
    checked = check_shapes(shapes)
    chances = _base_probabilities(checked, probs)
    if available is not None:
        chances = np.where(np.asarray(available, dtype=bool), chances, 0.0)
    if chances.sum() == 0:
        raise ValueError(f"probs must give some shape that has rows a chance: {list(chances)}")
    if upweight_every < 0 or not upweight_factor > 0:
        raise ValueError(
            f"upweight_every must be >= 0 and upweight_factor > 0: {upweight_every}, {upweight_factor}"
        )
    if upweight_every and step and step % upweight_every == 0:
        possible = np.flatnonzero(chances > 0)
        # if several are equally rare, the longest
        rarest = possible[chances[possible] == chances[possible].min()][-1]
        chances = chances.copy()
        chances[rarest] *= upweight_factor
    return np.asarray(chances / chances.sum())


def sample_enumerated_shape(
    shapes: Sequence[int],
    probs: Probs = None,
    *,
    step: int,
    seed: int,
    upweight_every: int = 0,
    upweight_factor: float = 2.0,
    available: Sequence[bool] | None = None,
) -> int:
    """The shape of one optimiser step; the draw depends on (seed, step) alone.

    Args:
        shapes: sorted and unique.
        probs: as in `shape_probabilities`.
        step: the optimiser step, from 0.
        seed: the run's seed, >= 0.
        upweight_every: as in `shape_probabilities`.
        upweight_factor: as in `shape_probabilities`.
        available: as in `shape_probabilities`.

    Returns:
        one of `shapes`.

    Example:
        >>> sample_enumerated_shape([512, 1024], [0.0, 1.0], step=7, seed=0)
        1024
    """
    chances = shape_probabilities(
        shapes,
        probs,
        step=step,
        upweight_every=upweight_every,
        upweight_factor=upweight_factor,
        available=available,
    )
    uniform = float(random_words(1, seed, SHAPE_STREAM, step)[0] >> np.uint64(11)) * 2.0**-53
    index = int(np.searchsorted(np.cumsum(chances), uniform, side="right"))
    # rounding may leave the last sum slightly below 1
    return int(shapes[min(index, int(np.flatnonzero(chances)[-1]))])


@dataclass(frozen=True)
class ShapeUse:
    """The rows of one shape.

    Attributes:
        shape: padded length in tokens.
        rows: number of rows for which it is the smallest shape.
        tokens: tokens of these rows.
        padding_fraction: share of the padded positions that hold no token; 0 without rows.
    """

    shape: int
    rows: int
    tokens: int
    padding_fraction: float


def shape_use(lengths: Sequence[int] | NDArray[Any], shapes: Sequence[int]) -> list[ShapeUse]:
    """Rows, tokens and padding of every shape; rows that fit no shape are left out.

    Example:
        >>> shape_use([4, 8, 12], [8, 16])[0]
        ShapeUse(shape=8, rows=2, tokens=12, padding_fraction=0.25)
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    index = assign_shapes(lengths, shapes)
    uses = []
    for number, shape in enumerate(shapes):
        inside = lengths[index == number]
        tokens, padded = int(inside.sum()), len(inside) * shape
        uses.append(ShapeUse(shape, len(inside), tokens, 1.0 - tokens / padded if padded else 0.0))
    return uses
