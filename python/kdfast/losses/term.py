"""What a loss returns, and how its positions are counted before the first forward.

A loss gives a *sum* over counted positions and the count. The counts of a whole optimiser step (all
micro-batches, all ranks) are known from the masks alone, so the trainer adds them up first and hands `weight
/ count` to every term as its coefficient: then 8x1, 4x2 and 1x8 rows, on one rank or on several, give the
same loss and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX, SOURCES


@dataclass(frozen=True)
class Term:
    """A sum over counted positions, and the count.

    Attributes:
        total: scalar on the graph, in fp32 (fp64 for fp64 inputs).
        count: positions counted, or the sum of their weights; from masks and weights alone.
        skipped: rows whose value was not finite and that were left out under `nan="skip_row"` (still in
            `count`).

    Example:
        >>> Term(torch.tensor(6.0), 3).mean()
        tensor(2.)
        >>> Term(torch.tensor(6.0), 3).scaled(0.5 / 12)
        tensor(0.2500)
        >>> Term(torch.tensor(0.0), 0).mean()
        tensor(0.)
    """

    total: Tensor
    count: float
    skipped: int = 0

    def mean(self) -> Tensor:
        """The total per counted position; the total itself, 0, when nothing was counted."""
        return self.total / self.count if self.count else self.total

    def scaled(self, coefficient: float) -> Tensor:
        """The total times a coefficient that was known before the forward."""
        return self.total * coefficient


def supervised_mask(batch: Mapping[str, Tensor]) -> Tensor:
    """Positions whose logits any loss needs: those with a label, a teacher distribution or drawn ids.

    Args:
        batch: `labels` [B,T] int64 and, where known, `teacher_topk_mask` [B,T] bool and `teacher_sample_counts`
            [B,T,S].

    Returns:
        [B,T] bool.

    Example:
        >>> labels, known = torch.tensor([[-100, 5]]), torch.tensor([[True, False]])
        >>> supervised_mask({"labels": labels, "teacher_topk_mask": known})
        tensor([[True, True]])
    """
    mask = (batch["labels"] != IGNORE_INDEX) | sampled_mask(batch)
    return mask | batch["teacher_topk_mask"] if "teacher_topk_mask" in batch else mask


def sampled_mask(batch: Mapping[str, Tensor]) -> Tensor:
    """[B,T] bool, positions where ids were drawn from the teacher.

    Example:
        >>> counts = torch.tensor([[[2, 1], [0, 0]]])
        >>> sampled_mask({"labels": torch.zeros(1, 2), "teacher_sample_counts": counts})
        tensor([[ True, False]])
    """
    if "teacher_sample_counts" not in batch:
        return torch.zeros_like(batch["labels"], dtype=torch.bool)
    return (batch["teacher_sample_counts"] > 0).any(-1)


def count_kl(batch: Mapping[str, Tensor]) -> int:
    """Positions of a batch that the sparse divergences count: those with a teacher distribution.

    Example:
        >>> count_kl({"teacher_topk_mask": torch.tensor([[True, False, True]])}), count_kl({})
        (2, 0)
    """
    return int(batch["teacher_topk_mask"].sum()) if "teacher_topk_mask" in batch else 0


def span_weights(
    batch: Mapping[str, Tensor], *, name_weight: float = 0.0, args_weight: float = 0.0
) -> Tensor:
    """Cross-entropy weights: 1 + name_weight on a token of the tool's name + args_weight on an argument's.

    Args:
        batch: `labels` [B,T] and, where known, `tool_name_mask` and `tool_args_mask` [B,T] bool.
        name_weight: added on the tool's name.
        args_weight: added on the arguments.

    Returns:
        [B,T] float32.

    Example:
        >>> batch = {"labels": torch.tensor([[5, 6]]), "tool_name_mask": torch.tensor([[False, True]])}
        >>> span_weights(batch, name_weight=0.25)
        tensor([[1.0000, 1.2500]])
    """
    weights = torch.ones_like(batch["labels"], dtype=torch.float32)
    for field, weight in (("tool_name_mask", name_weight), ("tool_args_mask", args_weight)):
        if field in batch:
            weights = weights + weight * batch[field]
    return weights


def count_ce(
    batch: Mapping[str, Tensor], source: str, *, name_weight: float = 0.0, args_weight: float = 0.0
) -> float:
    """The sum of cross-entropy weights over the labelled positions of one source's rows.

    Formed from whole-number counts, so that it does not depend on how a step is split.

    Args:
        batch: `labels` [B,T], `source` [B] (0 teacher, 1 truth) and the masks of `span_weights`.
        source: "teacher" or "truth".
        name_weight: as in `span_weights`.
        args_weight: as in `span_weights`.

    Example:
        >>> batch = {"labels": torch.tensor([[5, -100], [6, 7]]), "source": torch.tensor([0, 1])}
        >>> count_ce(batch, "teacher"), count_ce(batch, "truth")
        (1.0, 2.0)
    """
    counted = (batch["labels"] != IGNORE_INDEX) & (batch["source"] == SOURCES[source])[:, None]
    count = float(counted.sum())
    for field, weight in (("tool_name_mask", name_weight), ("tool_args_mask", args_weight)):
        if field in batch:
            count += weight * int((counted & batch[field]).sum())
    return count
