"""The entry of `length`: the length-aware loss, whose hinge a moving average over steps opens and closes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.config.kd import KDConfig
from kdfast.losses.entries.entry import (
    Batch,
    Entry,
    EntryPlan,
    Found,
    Positions,
    RowValues,
    State,
    TermSpec,
    View,
)
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.latency.length_aware_kd_loss import LengthOptions, length_rows
from kdfast.losses.latency.length_plan import LengthPlan, length_plan
from kdfast.losses.latency.log_odds import check_ids
from kdfast.losses.latency.positions import positions_in


@dataclass(frozen=True)
class _Detail:
    """The plan, the places of its gate among the supervised positions [M], and the turn-end ids."""

    plan: LengthPlan
    at: Tensor
    eos_ids: Tensor


class Length(Entry):
    """Its state is `average`: the moving average of the steps' mean excess."""

    name = "length"
    specs = (
        TermSpec(
            name="length",
            weight="length_weight",
            field="an answer that ends with its turn's end",
            remedy="give records whose answers were not cut (finish_reason: length)",
            present=lambda row: row.ended,
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`."""
        plan = length_plan(batch, settings.eos_ids)
        at = positions_in(positions.mask, plan.gate[:, : positions.width], "gate")
        exempt = plan.skipped["exempt"]
        return EntryPlan(
            counts={"length": float(plan.count)},
            detail=_Detail(plan, at, torch.tensor(check_ids(settings.eos_ids, positions.vocab))),
            diagnostics={"len_kd.frac_exempt": (exempt, exempt + plan.count)},
            left_out={f"length.{reason}": rows for reason, rows in plan.skipped.items()},
        )

    def loss(self, view: View, plan: EntryPlan, state: State | None, settings: LossSettings) -> Found:
        """See `Entry.loss`."""
        detail: _Detail = plan.detail
        options = length_options(settings.kd, state)
        odds = view.log_odds(detail.at, detail.eos_ids)
        if options.hinge_open is False:
            odds = odds.detach()  # the term is 0: no gradient is worth a second product
        rows = length_rows(odds, detail.plan, options)
        kept = ~rows.bad
        penalized = ((rows.excess > 0) & kept).sum()
        values = RowValues(
            total=rows.total,
            count=plan.counts["length"],
            bad=rows.bad,
            numbers=detail.plan.numbers,
            what="log-odds of the turn end",
        )
        return Found(
            terms={"length": values},
            diagnostics={"len_kd.frac_penalized": (penalized, kept.sum())},
            medians={"len_kd.median_rel_excess": (rows.relative_excess, kept)},
            observed={
                "excess": rows.excess.double().masked_fill(rows.bad, 0.0).sum(),
                "rows": kept.sum(),
            },
        )

    def next_state(self, state: State | None, observed: Mapping[str, float], settings: LossSettings) -> State:
        """See `Entry.next_state`; a step without counted rows changes nothing."""
        before = None if state is None else state["average"]
        if not observed.get("rows"):
            return {"average": before}
        mean = observed["excess"] / observed["rows"]
        return {"average": moving_average(before, mean, settings.kd.length_ema_decay)}


def length_options(kd: KDConfig, state: State | None = None) -> LengthOptions:
    """The length loss's options of a config, and of what the term remembers.

    Args:
        kd: the config's section.
        state: what the term remembers: under `kd.length_aggregate: ema` the hinge is open where the average is above
            0. None = outside training: a hinge for each row.

    Example:
        >>> length_options(KDConfig(length_hinge=0.3)).hinge
        0.3
        >>> [length_options(KDConfig(), {"average": average}).hinge_open for average in (None, 0.2, -0.1)]
        [False, True, False]
    """
    hinge_open = None
    if state is not None and kd.length_aggregate == "ema":
        hinge_open = state["average"] is not None and state["average"] > 0
    return LengthOptions(
        form=kd.length_form,
        slope=kd.length_slope,
        hinge=kd.length_hinge,
        quantile=kd.length_quantile,
        max_new_tokens=kd.max_new_tokens,
        hinge_open=hinge_open,
    )


def moving_average(average: float | None, value: float, decay: float) -> float:
    """The exponential moving average after one more value; the first value is its own average.

    Examples:
        >>> moving_average(None, 2.0, 0.9), moving_average(1.0, 2.0, 0.75)
        (2.0, 1.25)
    """
    return value if average is None else decay * average + (1 - decay) * value
