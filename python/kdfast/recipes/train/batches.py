"""The micro-batches of each step, in order, made in this process or by DataLoader workers."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch.utils.data import DataLoader

from kdfast.data import KDDataset, collate_kd_batch
from kdfast.distributed.ranks import Ranks
from kdfast.recipes.train.objective import Batch
from kdfast.shapes import StepSampler


class MicroBatches:
    """This rank's micro-batches, step by step.

    DataLoader workers run ahead of the loop, so they use a copy of the sampler. The loop's own sampler stays at the
    loop's step: its cursors go into checkpoints.
    """

    def __init__(
        self,
        dataset: KDDataset,
        sampler: StepSampler,
        ranks: Ranks,
        *,
        micro_batch_size: int,
        first_step: int,
        num_steps: int,
        workers: int,
    ) -> None:
        self._sampler, self._ranks, self._size = sampler, ranks, micro_batch_size
        loader = DataLoader(
            dataset,
            batch_sampler=_Ahead(self, copy.deepcopy(sampler), range(first_step, num_steps)),
            num_workers=workers,
            collate_fn=collate_kd_batch,
        )
        self._batches: Iterator[Batch] = iter(loader)

    def take(self, step: int) -> tuple[int, list[Batch]]:
        """The shape and the micro-batches of `step`; steps must be taken in order."""
        shape, rows = self._sampler.plan(step)
        return shape, [next(self._batches) for _ in self.parts(rows)]

    def parts(self, rows: list[int]) -> list[list[int]]:
        """This rank's rows of a step, one list per micro-batch."""
        own = self._ranks.share(rows)
        return [own[start : start + self._size] for start in range(0, len(own), self._size)]


class _Ahead:
    """The rows of every micro-batch of the coming steps, for the loader."""

    def __init__(self, batches: MicroBatches, sampler: StepSampler, steps: range) -> None:
        self._batches, self._sampler, self._steps = batches, sampler, steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            yield from self._batches.parts(self._sampler.plan(step)[1])
