"""The divergence from a model beside the student, at positions of its own: one more pass over chunks of logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.losses.entries.entry import RowValues, View
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.rows.linear_kd import linear_rows
from kdfast.losses.rows.maths import Targets
from kdfast.losses.rows.numerics import computing_dtype
from kdfast.losses.rows.teacher import TeacherOutput
from kdfast.losses.token.divergences import divergence_of


@dataclass(frozen=True, kw_only=True)
class DenseRows:
    """M positions that are compared.

    Attributes:
        index: [M] int64, places in the flattened [B*T'].
        numbers: [M] int64, the dataset's row of each.
    """

    index: Tensor
    numbers: Tensor


def divergence_from(
    teacher: TeacherOutput, view: View, rows: DenseRows, settings: LossSettings, *, term: str
) -> RowValues:
    """The sum of `kd.divergence` at `kd.temperature` over the positions.

    The logits of `view.chunk_rows` positions exist at once, of both models.

    Args:
        teacher: the other model's forward pass.
        view: the student's.
        rows: the positions.
        settings: settings of the loss.
        term: name of the term, for messages.
    """
    count, kd = len(rows.index), settings.kd
    nothing = rows.index.new_empty(count, 0)
    dtype = computing_dtype(view.head.dtype)
    ones = torch.ones(count, dtype=dtype, device=rows.index.device)
    targets = Targets(
        labels=nothing,
        absent=nothing.bool(),
        label_coefficients=nothing.to(dtype),
        classes=None,
        dense=teacher.at(rows.index),
        divergence=divergence_of(kd),
        kl_coefficients=ones,
        known=ones.bool(),
        temperature=kd.temperature,
    )
    picked = view.last.flatten(0, 1)[rows.index]  # [M,D]
    result, values = linear_rows(picked, view.head, targets, chunk_rows=view.chunk_rows, want_best=False)
    return RowValues(
        total=result.total,
        count=count,
        bad=result.bad_kl,
        numbers=rows.numbers,
        what=f"{term}: logits",
        bad_teacher=values.bad_teacher,
    )
