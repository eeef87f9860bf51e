"""The losses: sums over supervised rows, one file each, listed here.

A new loss is `losses/<name>.py`, one line in `LOSSES`, and its test; the invariants that all losses share are
tested by parametrisation over this list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kdfast.losses.cross_entropy import cross_entropy
from kdfast.losses.forward_kl import forward_kl
from kdfast.losses.term import (
    IGNORE_INDEX,
    Term,
    count_ce,
    count_kl,
    span_weights,
    supervised_mask,
)

__all__ = [
    "IGNORE_INDEX",
    "LOSSES",
    "Loss",
    "Term",
    "count_ce",
    "count_kl",
    "cross_entropy",
    "forward_kl",
    "span_weights",
    "supervised_mask",
]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One entry of the table of losses.

    Attributes:
        name: as configs and metrics spell it.
        function: takes logits [N,V] at supervised positions and the fields below, gathered there; gives a
            `Term`.
        needs: argument name -> batch field it is gathered from.
        divergence: at least -1e-6, and 0 with zero gradient where the student equals the teacher.
        temperature: takes `temperature`.
    """

    name: str
    function: Callable[..., Term]
    needs: Mapping[str, str]
    divergence: bool
    temperature: bool


_SPARSE_TEACHER = {
    "topk_ids": "teacher_topk_ids",
    "topk_logp": "teacher_topk_logp",
    "tail_logp": "teacher_tail_logp",
}

LOSSES = (
    Loss(name="forward_kl", function=forward_kl, needs=_SPARSE_TEACHER, divergence=True, temperature=True),
    Loss(
        name="cross_entropy",
        function=cross_entropy,
        needs={"labels": "labels"},
        divergence=False,
        temperature=False,
    ),
)
