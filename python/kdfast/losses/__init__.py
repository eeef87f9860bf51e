"""The losses: sums over supervised rows, one file each, listed here.

A new loss is `losses/<name>.py`, one line in `LOSSES`, and its test; the invariants that all losses share are
tested by parametrisation over this list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdfast.losses.combined.combined_kd_loss import CombinedLoss, combined_kd_loss
from kdfast.losses.combined.table import TERMS, BatchPlan, LossSettings, TermSpec, plan_batch, term_weights
from kdfast.losses.latency.early_tool_call_loss import (
    EarlyToolOptions,
    EarlyToolTerms,
    early_tool_call_loss,
    early_tool_ramp,
)
from kdfast.losses.latency.early_tool_plan import EarlyToolPlan, early_tool_plan
from kdfast.losses.latency.expected_length import expected_length
from kdfast.losses.latency.length_aware_kd_loss import (
    LengthOptions,
    LengthTerm,
    length_aware_kd_loss,
    length_excess,
)
from kdfast.losses.latency.length_plan import LengthPlan, length_plan
from kdfast.losses.latency.log_odds import linear_log_odds, log_odds
from kdfast.losses.rows.autograd import RowTargets
from kdfast.losses.rows.kernel import Divergence
from kdfast.losses.rows.linear_kd import LinearKD, linear_kd
from kdfast.losses.rows.teacher import DenseHead, DenseTeacher, SparseTeacher
from kdfast.losses.term import (
    IGNORE_INDEX,
    Term,
    count_ce,
    count_kl,
    span_weights,
    supervised_mask,
)
from kdfast.losses.token.cross_entropy import cross_entropy
from kdfast.losses.token.forward_kl import FORWARD_KL, forward_kl
from kdfast.losses.token.generalized_jsd import generalized_jsd, jsd
from kdfast.losses.token.reverse_kl import REVERSE_KL, reverse_kl
from kdfast.losses.token.sampled_kl import sampled_kl
from kdfast.losses.token.skew_kl import skew, skew_kl

__all__ = [
    "FORWARD_KL",
    "IGNORE_INDEX",
    "LOSSES",
    "REVERSE_KL",
    "TERMS",
    "BatchPlan",
    "CombinedLoss",
    "DenseHead",
    "DenseTeacher",
    "Divergence",
    "EarlyToolOptions",
    "EarlyToolPlan",
    "EarlyToolTerms",
    "LengthOptions",
    "LengthPlan",
    "LengthTerm",
    "LinearKD",
    "Loss",
    "LossSettings",
    "RowTargets",
    "SparseTeacher",
    "Term",
    "TermSpec",
    "combined_kd_loss",
    "count_ce",
    "count_kl",
    "cross_entropy",
    "early_tool_call_loss",
    "early_tool_plan",
    "early_tool_ramp",
    "expected_length",
    "forward_kl",
    "generalized_jsd",
    "jsd",
    "length_aware_kd_loss",
    "length_excess",
    "length_plan",
    "linear_kd",
    "linear_log_odds",
    "log_odds",
    "plan_batch",
    "reverse_kl",
    "sampled_kl",
    "skew",
    "skew_kl",
    "span_weights",
    "supervised_mask",
    "term_weights",
]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One entry of the table of losses on rows of logits.

    Attributes:
        name: as configs and metrics spell it.
        function: takes logits [N,V] at supervised positions and its other arguments; gives a `Term`.
        needs: the batch fields that its inputs come from.
        teacher: its second argument is a `SparseTeacher` or `DenseTeacher`; else labels or drawn ids.
        divergence: at least -1e-6, and 0 with zero gradient where the student equals the teacher.
        temperature: takes `temperature`.
    """

    name: str
    function: Callable[..., Term]
    needs: tuple[str, ...]
    teacher: bool
    divergence: bool
    temperature: bool


_TEACHER = ("teacher_topk_ids", "teacher_topk_logp", "teacher_tail_logp", "teacher_topk_mask")


def _divergence(function: Callable[..., Term]) -> Loss:
    return Loss(
        name=function.__name__,
        function=function,
        needs=_TEACHER,
        teacher=True,
        divergence=True,
        temperature=True,
    )


LOSSES = (
    _divergence(forward_kl),
    _divergence(reverse_kl),
    _divergence(generalized_jsd),
    _divergence(skew_kl),
    Loss(
        name="sampled_kl",
        function=sampled_kl,
        needs=("teacher_sample_ids", "teacher_sample_counts"),
        teacher=False,
        divergence=False,
        temperature=False,
    ),
    Loss(
        name="cross_entropy",
        function=cross_entropy,
        needs=("labels",),
        teacher=False,
        divergence=False,
        temperature=False,
    ),
)
