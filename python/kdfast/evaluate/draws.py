"""Draws the tokens of answers at a temperature, so that the batch makes no difference."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Draws:
    """A `Constraint` for `generate` with which each token is drawn from softmax(logits / temperature).

    A token is the argmax of logits / temperature + Gumbel noise, which is an exact draw. The noise is a function of the
    answer's key and of the place in the answer, and of nothing else: not of the batch, and not of what was drawn before
    a restart.

    Args:
        keys: [prompts] for each prompt a text that decides its draws; equal keys give equal noise.
        temperature: 0 = no noise, the likeliest token.
        usable: ids from here on are never drawn: rows of the output layer that no token has; None = all are usable.
        end_ids: ids that may be drawn even so.

    Example:
        >>> draws = Draws(["a", "b"], temperature=1.0)
        >>> both = draws.restrict([0, 1], torch.zeros(2, 5)).argmax(1).tolist()
        >>> both == [int(draws.restrict([place], torch.zeros(1, 5)).argmax()) for place in (0, 1)]
        True
    """

    def __init__(
        self,
        keys: Sequence[str],
        temperature: float,
        usable: int | None = None,
        end_ids: Collection[int] = (),
    ) -> None:
        self._keys = keys
        self._temperature = temperature
        self._usable = usable
        self._end_ids = end_ids
        self._taken = [0] * len(keys)

    def restrict(self, places: Sequence[int], logits: Tensor) -> Tensor:
        """The logits of ids that may be drawn, with their noise; the others are -inf.

        Args:
            places: [B] for each row the index of its prompt.
            logits: [B, V] the logits of the next token.
        """
        if self._temperature:
            # MPS has no float64
            logits = (logits.cpu() if logits.device.type == "mps" else logits).double()
            rows = [row_uniforms(self._keys[place], self._taken[place], logits.shape[1]) for place in places]
            noise = torch.from_numpy(np.stack(rows)).to(logits.device).log_().neg_().log_().neg_()
            # divided by the temperature it has the same argmax, but may overflow
            logits = logits + self._temperature * noise
        return self._without_padding(logits)

    def _without_padding(self, logits: Tensor) -> Tensor:
        width = logits.shape[1]
        if self._usable is None or self._usable >= width:
            return logits
        forbidden = torch.arange(width) >= self._usable
        forbidden[[end for end in self._end_ids if end < width]] = False
        return logits.masked_fill(forbidden.to(logits.device), -torch.inf)

    def take(self, place: int, token: int, *, ended: bool) -> None:  # noqa: ARG002 - as `Constraint` has it
        """Notes that the answer to the prompt at this index is one token longer."""
        self._taken[place] += 1


def row_uniforms(key: str, position: int, ids: int) -> NDArray[np.float64]:
    """The uniform numbers for the draw of one token.

    They are made of the raw words of Philox, which numpy never changes.

    Args:
        key: decides the numbers, with the position.
        position: the token's place in its answer, from 0.
        ids: how many numbers.

    Returns:
        [ids] float64 in (0, 1).

    Example:
        >>> row_uniforms("key", 3, 2).round(3).tolist() == row_uniforms("key", 3, 9)[:2].round(3).tolist()
        True
    """
    digest = hashlib.sha256(f"{key} {position}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(ids)
    # 52 bits, so that the sum with 0.5 is exact and neither 0 nor 1 comes up
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
