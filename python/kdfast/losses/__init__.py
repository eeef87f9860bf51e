"""The losses: sums over supervised positions and their counts.

`token/` has losses of one position, `latency/` losses of a whole answer, `rows/` the maths that they share. `entries/`
has one entry for each term of the training loss, `combined/` the table of these and their sum. The invariants that
all losses on rows of logits share are tested by parametrisation over `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdfast.batch import IGNORE_INDEX
from kdfast.losses.combined.combined_kd_loss import (
    StepWeights,
    StudentOutput,
    combined_kd_loss,
    planned_loss,
)
from kdfast.losses.combined.pending import CombinedLoss, PendingLoss
from kdfast.losses.combined.plan import BatchPlan, plan_batch
from kdfast.losses.combined.table import ENTRIES, TERMS, term_weights
from kdfast.losses.entries.entry import Entry, Layers, RowFacts, State, TermSpec
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.latency.early_tool_call_loss import EarlyToolTerms, early_tool_call_loss
from kdfast.losses.latency.early_tool_options import EarlyToolOptions, early_tool_ramp
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
from kdfast.losses.rows.teacher import DenseHead, DenseTeacher, SparseTeacher, TeacherOutput
from kdfast.losses.term import Term, count_ce, count_kl, span_weights, supervised_mask
from kdfast.losses.token.cross_entropy import cross_entropy
from kdfast.losses.token.divergences import DIVERGENCES
from kdfast.losses.token.forward_kl import FORWARD_KL, forward_kl
from kdfast.losses.token.generalized_jsd import generalized_jsd, jsd
from kdfast.losses.token.hidden_state import hidden_state_loss
from kdfast.losses.token.reverse_kl import REVERSE_KL, reverse_kl
from kdfast.losses.token.sampled_kl import sampled_kl
from kdfast.losses.token.skew_kl import skew, skew_kl
from kdfast.losses.token.tvd import TVD, tvd

__all__ = [
    "DIVERGENCES",
    "ENTRIES",
    "FORWARD_KL",
    "IGNORE_INDEX",
    "LOSSES",
    "REVERSE_KL",
    "TERMS",
    "TVD",
    "BatchPlan",
    "CombinedLoss",
    "DenseHead",
    "DenseTeacher",
    "Divergence",
    "EarlyToolOptions",
    "EarlyToolPlan",
    "EarlyToolTerms",
    "Entry",
    "Layers",
    "LengthOptions",
    "LengthPlan",
    "LengthTerm",
    "LinearKD",
    "Loss",
    "LossSettings",
    "PendingLoss",
    "RowFacts",
    "RowTargets",
    "SparseTeacher",
    "State",
    "StepWeights",
    "StudentOutput",
    "TeacherOutput",
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
    "hidden_state_loss",
    "jsd",
    "length_aware_kd_loss",
    "length_excess",
    "length_plan",
    "linear_kd",
    "linear_log_odds",
    "log_odds",
    "plan_batch",
    "planned_loss",
    "reverse_kl",
    "sampled_kl",
    "skew",
    "skew_kl",
    "span_weights",
    "supervised_mask",
    "term_weights",
    "tvd",
]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One entry of the table of losses on rows of logits.

    Attributes:
        name: as configs and metrics spell it.
        function: takes logits [N,V] at supervised positions and its other arguments; gives a `Term`.
        needs: the batch fields that its inputs come from.
        teacher: its second argument is a `SparseTeacher` or `DenseTeacher`; else labels or drawn ids.
        divergence: its value is at least -1e-6, and 0 where the student equals the teacher. Whether the gradient is 0
            there too, `Divergence.smooth` says.
        temperature: takes `temperature`.
    """

    name: str
    function: Callable[..., Term]
    needs: tuple[str, ...]
    teacher: bool
    divergence: bool
    temperature: bool


_TEACHER = ("teacher_topk_ids", "teacher_topk_logp", "teacher_tail_logp", "teacher_topk_mask")


LOSSES = (
    *(
        Loss(
            name=name,
            function=row.function,
            needs=_TEACHER,
            teacher=True,
            divergence=True,
            temperature=True,
        )
        for name, row in DIVERGENCES.items()
    ),
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
