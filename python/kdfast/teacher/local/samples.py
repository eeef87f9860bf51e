"""Draws ids from a teacher's distributions (random-sampling KD). A row's ids do not depend on its batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DRAW_ROWS = 32
"""Rows whose cumulative probabilities are in memory at once: [rows,V] float64."""


def row_uniforms(key: bytes, tokens: int, samples: int) -> NDArray[np.float64]:
    """The uniform numbers for a row's draws; they depend on its key alone.

    They are made of the raw words of PCG64, which numpy never changes.

    Args:
        key: the row's key in the teacher store.
        tokens: number of tokens from the response on.
        samples: draws per token.

    Returns:
        [tokens,samples] float64 in [0, 1).

    Examples:
        >>> row_uniforms(b"key", 2, 2).round(3).tolist() == row_uniforms(b"key", 9, 2)[:2].round(3).tolist()
        True
    """
    words = np.random.PCG64(np.random.SeedSequence(list(key))).random_raw(tokens * samples)
    return (words.reshape(tokens, samples) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_samples(logp: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draws ids with replacement by inverting the cumulative probabilities, and counts them.

    An id comes up as often as its probability says, so `-sum(count / S * log q)` over the drawn ids has the
    expected value of the full cross-entropy, and the expected gradient of the full KL (arXiv 2503.16870).

    Args:
        logp: [N,V] float32 log-probabilities.
        uniforms: [N,S] float64 in [0, 1), one for each draw; no two rows should have the same ones.

    Returns:
        ids [N,S] int32 and counts [N,S] int32 on the device of `logp`: the distinct ids of a row, ascending, then
        id 0 with count 0. The counts of a row add up to S.

    Examples:
        >>> logp = torch.tensor([[0.5, 0.0, 0.25, 0.25]]).log()
        >>> draw_samples(logp, torch.tensor([[0.9, 0.1, 0.6, 0.4]], dtype=torch.float64))
        (tensor([[0, 2, 3, 0]], dtype=torch.int32), tensor([[2, 1, 1, 0]], dtype=torch.int32))
    """
    # MPS has no float64
    place = torch.device("cpu") if logp.device.type == "mps" else logp.device
    uniforms = uniforms.to(place)
    drawn = [
        _invert(part.to(place).double().exp_(), uniform)
        for part, uniform in zip(*(torch.split(x, DRAW_ROWS) for x in (logp, uniforms)), strict=True)
    ]
    ids, counts = _count(torch.cat(drawn))
    return ids.int().to(logp.device), counts.int().to(logp.device)


def _invert(masses: Tensor, uniforms: Tensor) -> Tensor:
    """[N,S] for each uniform u: the first id whose cumulative mass exceeds u times the row's whole mass."""
    cumulative = torch.cumsum(masses, 1, out=masses)
    return torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)


def _count(drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of each row [N,S], ascending, and how often each occurs; both are filled up with 0.

    Example: the row [7, 3, 7] gives ids [3, 7, 0] and counts [1, 2, 0].
    """
    ordered = drawn.sort(1).values
    new = torch.ones_like(ordered)  # 1 where a value differs from the one before
    new[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long()
    slots = new.cumsum(1) - 1  # [N,S] the place of each value among the distinct ones
    zeros = torch.zeros_like(ordered)
    return zeros.scatter(1, slots, ordered), zeros.scatter_add(1, slots, torch.ones_like(ordered))
