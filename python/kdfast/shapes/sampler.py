"""Decides the shape and the rows of every optimiser step.

The shape and rows of step n are a pure function of the seed, n, and the bucket cursors in the checkpoint. So a step has
the same rows however it is split into micro-batches and ranks, and wherever the run was resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdfast.errors import CheckpointError, DataError
from kdfast.shapes.enumerated import (
    ROW_STREAM,
    Ints,
    Probs,
    assign_shapes,
    check_shapes,
    random_words,
    sample_enumerated_shape,
    shape_probabilities,
)


class StepSampler:
    """The shape and the rows of every optimiser step.

    Each row belongs to the bucket of the smallest shape that holds it. A step draws a shape and takes the next rows of
    its bucket. A bucket gives every row once, in a seeded order, before it gives any row a second time; then it starts
    again in a new order. If a bucket has fewer rows than a step, the step goes on into the new order.

    Steps may be planned in any order and any number of steps ahead: `state_dict(step)` gives the state of any step.

    Args:
        lengths: [n] tokens of each row; -1 for a row that is not to be used.
        shapes: sorted and unique.
        rows_per_step: rows of one optimiser step, over all micro-batches and ranks.
        seed: the run's seed, >= 0.
        probs: "natural" (the data's own shares), or as in `shape_probabilities`.
        upweight_every: as in `shape_probabilities`.
        upweight_factor: as in `shape_probabilities`.

    Raises:
        DataError: no row at all, or a row longer than the largest shape.

    Example:
        >>> sampler = StepSampler([3, 5, 9, 7], [8, 16], rows_per_step=3, seed=0)
        >>> shape, rows = sampler.plan(0)
        >>> shape, len(rows)
        (16, 3)
        >>> sampler.state_dict()["cursors"]  # rows drawn so far, by shape
        [0, 3]
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[Any],
        shapes: Sequence[int],
        *,
        rows_per_step: int,
        seed: int,
        probs: Probs = "natural",
        upweight_every: int = 0,
        upweight_factor: float = 2.0,
    ) -> None:
        if rows_per_step < 1 or seed < 0:
            raise ValueError(f"rows_per_step must be at least 1 and seed at least 0: {rows_per_step}, {seed}")
        self.shapes = check_shapes(shapes)
        lengths = np.asarray(lengths, dtype=np.int64)
        index = assign_shapes(lengths, self.shapes)
        too_long = np.flatnonzero((index < 0) & (lengths != -1))
        if len(too_long):
            raise DataError(
                f"row(s) {too_long[:8].tolist()} do not fit the largest shape {self.shapes[-1]}: "
                f"{lengths[too_long[:8]].tolist()} tokens"
            )
        self._buckets = [np.flatnonzero(index == number) for number in range(len(self.shapes))]
        sizes = [len(bucket) for bucket in self._buckets]
        if not any(sizes):
            raise DataError(f"no row to draw from fits the shapes {list(self.shapes)}")
        self.rows_per_step = rows_per_step
        self.seed = seed
        self._options: dict[str, Any] = {
            "probs": sizes if probs == "natural" else probs,
            "upweight_every": upweight_every,
            "upweight_factor": upweight_factor,
            "available": [size > 0 for size in sizes],
        }
        shape_probabilities(self.shapes, **self._options)
        self._start = (0, (0,) * len(sizes))
        self._known = self._start
        self._next_step = 0
        self._orders: dict[int, tuple[int, Ints]] = {}

    @property
    def first_step(self) -> int:
        """The first step that can be planned: 0, or the step of the loaded state."""
        return self._start[0]

    def shape_of(self, step: int) -> int:
        """The shape of a step."""
        return sample_enumerated_shape(self.shapes, step=step, seed=self.seed, **self._options)

    def plan(self, step: int) -> tuple[int, list[int]]:
        """The shape of a step and its rows.

        Args:
            step: a step from `first_step` on, in any order.

        Returns:
            the shape, and `rows_per_step` row numbers.
        """
        cursors = self._cursors(step)
        shape = self.shape_of(step)
        bucket = self.shapes.index(shape)
        first = cursors[bucket]
        self._next_step = step + 1
        return shape, [self._row(bucket, first + i) for i in range(self.rows_per_step)]

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """The state that a checkpoint before `step` keeps; JSON values.

        Args:
            step: the next step to run; None means the one after the step planned last.
        """
        step = self._next_step if step is None else step
        return {"step": step, "cursors": list(self._cursors(step)), **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            CheckpointError: the state is of other data, shapes, seed or rows per step.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise CheckpointError(
                    f"the checkpoint's sampler has another {name}; "
                    f"resume with the data and config it was made with: {state.get(name)}, now {value}"
                )
        self._start = (int(state["step"]), tuple(int(cursor) for cursor in state["cursors"]))
        self._known = self._start
        self._next_step = self._start[0]

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "shapes": list(self.shapes),
            "rows_per_step": self.rows_per_step,
            "bucket_rows": [len(bucket) for bucket in self._buckets],
        }

    def _cursors(self, step: int) -> tuple[int, ...]:
        """Rows drawn from each bucket before a step."""
        if step < self._start[0]:
            raise ValueError(f"step must not lie before the loaded state ({self._start[0]}): {step}")
        # Start from the cached cursors; usually one step has passed.
        at, cursors = self._known if self._known[0] <= step else self._start
        drawn = list(cursors)
        for earlier in range(at, step):
            drawn[self.shapes.index(self.shape_of(earlier))] += self.rows_per_step
        self._known = (step, tuple(drawn))
        return self._known[1]

    def _row(self, bucket: int, position: int) -> int:
        rows = self._buckets[bucket]
        epoch, offset = divmod(position, len(rows))
        known, order = self._orders.get(bucket, (-1, rows))
        if known != epoch:
            words = random_words(len(rows), self.seed, ROW_STREAM, self.shapes[bucket], epoch)
            order = rows[np.argsort(words, kind="stable")]
            self._orders[bucket] = (epoch, order)
        return int(order[offset])
