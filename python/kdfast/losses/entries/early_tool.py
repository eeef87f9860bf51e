"""The entry of the four early-tool terms: they share one plan of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.losses.entries.entry import (
    Batch,
    Entry,
    EntryPlan,
    Found,
    Labels,
    Positions,
    RowFacts,
    RowValues,
    State,
    TermSpec,
    View,
)
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.latency.early_tool_call_loss import early_tool_rows
from kdfast.losses.latency.early_tool_options import EarlyToolOptions
from kdfast.losses.latency.early_tool_plan import EarlyToolPlan, early_tool_plan
from kdfast.losses.latency.log_odds import check_ids
from kdfast.losses.latency.positions import positions_in

_CALL = "give tools with a call that is due (tool_should_be_used) in some record"


@dataclass(frozen=True)
class _Detail:
    """The plan, the places of its openings among the supervised positions [M], and the ids that open a call."""

    plan: EarlyToolPlan
    at: Tensor
    opening_ids: Tensor


def _has_call(row: RowFacts) -> bool:
    return row.should_call and row.has_prefix


class EarlyTool(Entry):
    """`early_tool_ce` is a column of labels; the others look at the log-odds of opening a call."""

    name = "early_tool"
    specs = (
        TermSpec(
            name="early_tool_ce",
            weight="early_tool_ce_weight",
            field="teacher_prefix_ids",
            remedy=_CALL,
            present=_has_call,
            ramped=True,
        ),
        TermSpec(
            name="early_tool_prior",
            weight="early_tool_prior_weight",
            field="tool_should_be_used",
            remedy=_CALL,
            present=lambda row: row.should_call,
            ramped=True,
        ),
        TermSpec(
            name="early_tool_preamble",
            weight="early_tool_preamble_weight",
            field="tool_call_mask",
            remedy=_CALL,
            present=_has_call,
            ramped=True,
        ),
        TermSpec(
            name="early_tool_negative",
            weight="early_tool_negative_weight",
            field="tool_should_be_used",
            remedy="give records for which no call is due",
            present=lambda row: not row.should_call,
            ramped=True,
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`."""
        plan = early_tool_plan(batch, max_tokens=settings.prefix_tokens, parts=enabled)
        labels = detail = None
        if "early_tool_ce" in enabled:
            ids = positions.at(plan.targets)  # [N]
            ones = torch.ones(len(ids), 1, dtype=positions.dtype, device=ids.device)
            members = {"early_tool_ce": ids != IGNORE_INDEX}
            labels = Labels(ids=ids[:, None], weights=ones, members=members)
        if enabled != ("early_tool_ce",):
            at = positions_in(positions.mask, plan.opening[:, : positions.width], "opening")
            detail = _Detail(plan, at, torch.tensor(check_ids(settings.opening_ids, positions.vocab)))
        shares = {
            "frac_should_use": ("should_use", "all"),
            "frac_target_available": ("target_available", "should_use"),
        }
        return EntryPlan(
            counts={name: float(count) for name, count in plan.counts.items()},
            labels=labels,
            detail=detail,
            diagnostics={
                f"early_tool.{name}": (plan.rows[part], plan.rows[whole])
                for name, (part, whole) in shares.items()
            },
            left_out={f"early_tool.{reason}": rows for reason, rows in plan.skipped.items()},
        )

    def loss(self, view: View, plan: EntryPlan, state: State | None, settings: LossSettings) -> Found:
        """See `Entry.loss`."""
        detail: _Detail | None = plan.detail
        if detail is None:
            return Found()
        odds = view.log_odds(detail.at, detail.opening_ids)
        options = EarlyToolOptions(max_preamble_tokens=settings.kd.max_preamble_tokens)
        terms = {
            part: RowValues(
                total=rows.total,
                count=plan.counts[part],
                bad=rows.bad,
                numbers=rows.numbers,
                what="call-opening log-odds",
            )
            for part, rows in early_tool_rows(odds, detail.plan, options).items()
        }
        diagnostics = {}
        if "early_tool_prior" in terms:
            prior = terms["early_tool_prior"]
            diagnostics["early_tool.mean_json_prior_nll0"] = (prior.total.detach(), (~prior.bad).sum())
        return Found(terms=terms, diagnostics=diagnostics)
