"""Ranks: one process, or several under torchrun that share the rows of each step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

_LEFT: list[object] = []
"""The groups that this process left; they live as long as it does."""


@dataclass(frozen=True)
class Ranks:
    """This process's number among the processes that share a run.

    Attributes:
        rank: 0-based number of this process.
        world: the number of processes.

    Examples:
        >>> Ranks(rank=1, world=2).share([10, 11, 12, 13, 14])
        [11, 13]
        >>> Ranks(rank=0, world=1).sum({"loss": 2.0})
        {'loss': 2.0}
    """

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, rows: list[int]) -> list[int]:
        """This rank's part of a step's rows."""
        return rows[self.rank :: self.world]

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over all ranks, in float64; every rank passes the same keys."""
        if self.world == 1:
            return dict(values)
        tensor = torch.tensor([float(value) for value in values.values()], dtype=torch.float64)
        if dist.get_backend() == "nccl":
            tensor = tensor.cuda()
        dist.all_reduce(tensor)
        return dict(zip(values, tensor.tolist(), strict=True))

    def gather(self, values: list[float]) -> list[float]:
        """The values of all ranks, in the order of the ranks; they may differ in number.

        Examples:
            >>> Ranks().gather([0.5, 0.25])
            [0.5, 0.25]
        """
        if self.world == 1:
            return values
        parts: list[list[float]] = [[] for _ in range(self.world)]
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one rank."""
        return self.sum({"flag": float(flag)})["flag"] > 0

    def wait(self) -> None:
        """Returns when every rank has called this."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """Ends the process group."""
        if self.world > 1:
            # A DDP model that is freed later must not be the group's last owner: holding Python's lock, it would wait
            # for the group's threads, and these for Python's lock.
            _LEFT.append(dist.group.WORLD)
            dist.destroy_process_group()


def join() -> Ranks:
    """Joins the process group that torchrun describes in the environment; alone without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    rank = int(os.environ["RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl")
    else:
        dist.init_process_group("gloo")
    return Ranks(rank, world)
