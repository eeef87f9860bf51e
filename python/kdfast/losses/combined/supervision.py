"""What is known at the supervised positions of a batch, gathered there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from kdfast.losses.combined.table import LossSettings
from kdfast.losses.latency.early_tool_plan import EarlyToolPlan
from kdfast.losses.latency.positions import row_numbers
from kdfast.losses.rows.teacher import SparseTeacher
from kdfast.losses.term import sampled_mask, span_weights


class Taught(NamedTuple):
    """The teacher's distributions [N], and where they are known: [N] bool."""

    teacher: SparseTeacher
    known: Tensor


class Drawn(NamedTuple):
    """Ids drawn from the teacher [N,S], how often each [N,S], and where there are some: [N] bool."""

    ids: Tensor
    counts: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Supervision:
    """The N positions of a mask, in row-major order.

    Attributes:
        labels: [N] int64, -100 = none.
        source: [N], 0 teacher, 1 truth.
        spans: [N] weights of the cross-entropies.
        numbers: [N] the dataset's row of each.
        early_targets: [N] int64, first ids of a due call, -100 = none; None = not wanted.
        taught: None = nowhere in this batch.
        drawn: None = nowhere in this batch.
    """

    labels: Tensor
    source: Tensor
    spans: Tensor
    numbers: Tensor
    early_targets: Tensor | None
    taught: Taught | None
    drawn: Drawn | None


def supervision(
    batch: Mapping[str, Tensor], mask: Tensor, early: EarlyToolPlan | None, settings: LossSettings
) -> Supervision:
    """Gathers a batch at the positions of mask.

    Args:
        batch: the batch contract.
        mask: [B,T'] bool, T' <= T.
        early: the early-tool plan of the batch, if enabled.
        settings: of the losses.

    Example:
        >>> import torch
        >>> from kdfast.config import KDConfig
        >>> batch = {"labels": torch.tensor([[-100, 7]]), "source": torch.tensor([1]), "row": torch.tensor([40])}
        >>> found = supervision(batch, batch["labels"] >= 0, None, LossSettings(kd=KDConfig()))
        >>> found.labels.tolist(), found.source.tolist(), found.numbers.tolist()
        ([7], [1], [40])
    """
    width = mask.shape[1]
    row = mask.nonzero()[:, 0]

    def at(field: Tensor) -> Tensor:
        return field[:, :width][mask]

    kd = settings.kd
    spans = span_weights(batch, name_weight=kd.name_weight, args_weight=kd.args_weight)
    taught = drawn = None
    if "teacher_topk_mask" in batch:
        ids, logp, tail = (at(batch[f"teacher_{name}"]) for name in ("topk_ids", "topk_logp", "tail_logp"))
        teacher = SparseTeacher(ids, logp, tail, settings.logprob_temperature)
        taught = Taught(teacher, at(batch["teacher_topk_mask"]))
    if "teacher_sample_counts" in batch:
        ids, counts = (at(batch[f"teacher_sample_{name}"]) for name in ("ids", "counts"))
        drawn = Drawn(ids, counts, at(sampled_mask(batch)))
    return Supervision(
        labels=at(batch["labels"]),
        source=batch["source"][row],
        spans=at(spans),
        numbers=row_numbers(batch).to(row.device)[row],
        early_targets=at(early.targets) if early is not None and "early_tool_ce" in early.parts else None,
        taught=taught,
        drawn=drawn,
    )
