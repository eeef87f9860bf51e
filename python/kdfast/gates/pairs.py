"""Pairs of runs: the candidate and the blessed model on the same prompt, one right after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from kdfast.gates.bootstrap import Floats, Ints


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs of times. A greater time is slower; for tokens per second give the time per token.

    Attributes:
        prompt: [N] int64, the number of each pair's prompt; any integers.
        candidate: [N] float64, the candidate's milliseconds.
        blessed: [N] float64, the blessed model's milliseconds.
        prompts: how many different prompts there are.

    Example:
        >>> pairs = Pairs.from_rounds([[11.0, 12.0], [20.0, 21.0]], [[10.0, 10.0], [20.0, 20.0]])
        >>> len(pairs), pairs.prompts, pairs.problem()
        (4, 2, None)
    """

    prompt: Ints
    candidate: Floats
    blessed: Floats
    prompts: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        prompt = np.asarray(self.prompt, dtype=np.int64)
        sides = [np.asarray(side, dtype=np.float64) for side in (self.candidate, self.blessed)]
        if prompt.ndim != 1 or any(side.shape != prompt.shape for side in sides):
            shapes = [prompt.shape, *(side.shape for side in sides)]
            raise ValueError(
                f"pairs: prompt, candidate and blessed must be lists of equal length, got {shapes}"
            )
        for name, value in zip(("prompt", "candidate", "blessed"), (prompt, *sides), strict=True):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "prompts", len(np.unique(prompt)))

    @classmethod
    def from_rounds(cls, candidate_ms: ArrayLike, blessed_ms: ArrayLike) -> Self:
        """Makes pairs of two matrices of milliseconds.

        Args:
            candidate_ms: [prompts, rounds], the candidate's times; NaN in both matrices = this pair was not run.
            blessed_ms: [prompts, rounds], the blessed model's times.

        Returns:
            The pairs that were run. A NaN in only one matrix is kept, and fails the gate.

        Raises:
            ValueError: the two differ in shape, or are not matrices.
        """
        candidate, blessed = (np.asarray(side, dtype=np.float64) for side in (candidate_ms, blessed_ms))
        if candidate.ndim != 2 or candidate.shape != blessed.shape:
            shapes = (candidate.shape, blessed.shape)
            raise ValueError(f"candidate_ms and blessed_ms: must both be [prompts, rounds], got {shapes}")
        run = ~(np.isnan(candidate) & np.isnan(blessed))
        return cls(np.nonzero(run)[0], candidate[run], blessed[run])

    @classmethod
    def none(cls) -> Self:
        """No pairs yet."""
        return cls(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0))

    def __len__(self) -> int:
        return len(self.prompt)

    def joined(self, other: Pairs) -> Pairs:
        """These pairs, then the others."""
        sides = ("prompt", "candidate", "blessed")
        return Pairs(*(np.concatenate([getattr(self, side), getattr(other, side)]) for side in sides))

    def log_ratios(self) -> Floats:
        """log(candidate / blessed) of each pair, [N]; above 0 = the candidate is slower."""
        ratios: Floats = np.log(self.candidate) - np.log(self.blessed)
        return ratios

    def problem(self) -> str | None:
        """Why these times cannot be used: some are NaN, infinite, 0 or negative; None if all are valid.

        Example:
            >>> Pairs.from_rounds([[1.0], [0.0]], [[1.0], [1.0]]).problem()
            'candidate: 1 of 2 times is not finite and above 0'
        """
        for name in ("candidate", "blessed"):
            side = getattr(self, name)
            bad = int((~(np.isfinite(side) & (side > 0))).sum())
            if bad:
                verb = "is" if bad == 1 else "are"
                return f"{name}: {bad} of {len(side)} times {verb} not finite and above 0"
        return None

    def ordered(self) -> Pairs:
        """The same pairs, sorted by their times, with the prompts numbered 0, 1, ...

        So the order in which pairs were added changes no result, not even the seeded draws.
        """
        rows: dict[int, list[tuple[float, float]]] = {}
        for prompt, blessed, candidate in zip(
            self.prompt.tolist(), self.blessed.tolist(), self.candidate.tolist(), strict=True
        ):
            rows.setdefault(prompt, []).append((blessed, candidate))
        ranked = sorted(sorted(row) for row in rows.values())
        flat = [(number, *pair) for number, row in enumerate(ranked) for pair in row]
        prompt, blessed, candidate = (np.array(side) for side in zip(*flat, strict=True))
        return Pairs(prompt, candidate, blessed)
