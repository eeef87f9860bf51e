"""The terms of the training loss: which config key weighs each, which batch field it reads, how to get that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdfast.config.kd import KDConfig
from kdfast.losses.latency.early_tool_plan import PARTS, EarlyToolPlan, early_tool_plan
from kdfast.losses.latency.length_plan import LengthPlan, length_plan
from kdfast.losses.term import SOURCES, count_ce, count_kl, sampled_mask


@dataclass(frozen=True, kw_only=True)
class TermSpec:
    """One term.

    Attributes:
        name: in metrics.
        weight: its key in the config's section `kd`.
        field: the batch field without which it has nothing to act on.
        remedy: how data come to carry that field.
        final_weight: the key of its weight at the last step, if it has one.
        ramped: its weight grows from 0 over the early-tool warm-up.
    """

    name: str
    weight: str
    field: str
    remedy: str
    final_weight: str | None = None
    ramped: bool = False


_CALL = "tools with a call that is due (tool_should_be_used) in some record"

TERMS = (
    TermSpec(
        name="kl",
        weight="kl_weight",
        final_weight="kl_final_weight",
        field="teacher_topk_logp",
        remedy="write the teacher's log-probabilities with `kdfast teach CONFIG` (teacher.store), or import them as "
        "teacher_topk",
    ),
    TermSpec(
        name="sampled_kl",
        weight="sampled_kl_weight",
        field="teacher_sample_ids",
        remedy="set teacher.samples and run `kdfast teach CONFIG`",
    ),
    TermSpec(
        name="ce_teacher",
        weight="ce_teacher_weight",
        final_weight="ce_teacher_final_weight",
        field="labels of source teacher",
        remedy="give records with teacher_text or teacher_message",
    ),
    TermSpec(
        name="ce_truth",
        weight="ce_truth_weight",
        final_weight="ce_truth_final_weight",
        field="labels of source truth",
        remedy="give records with truth_text or truth_message",
    ),
    TermSpec(
        name="length",
        weight="length_weight",
        field="an answer that ends with its turn's end",
        remedy="give records whose answers were not cut (finish_reason: length)",
    ),
    TermSpec(
        name="early_tool_ce",
        weight="early_tool_ce_weight",
        field="teacher_prefix_ids",
        remedy=f"give {_CALL}",
        ramped=True,
    ),
    TermSpec(
        name="early_tool_prior",
        weight="early_tool_prior_weight",
        field="tool_should_be_used",
        remedy=f"give {_CALL}",
        ramped=True,
    ),
    TermSpec(
        name="early_tool_preamble",
        weight="early_tool_preamble_weight",
        field="tool_call_mask",
        remedy=f"give {_CALL}",
        ramped=True,
    ),
    TermSpec(
        name="early_tool_negative",
        weight="early_tool_negative_weight",
        field="tool_should_be_used",
        remedy="give records for which no call is due",
        ramped=True,
    ),
)


def term_weights(kd: KDConfig, *, progress: float = 1.0, ramp: float = 1.0) -> dict[str, float]:
    """The weight of each term that is switched on.

    Args:
        kd: the config's section.
        progress: 0 at the first step, 1 at the last: between a weight and its final weight.
        ramp: of the early-tool terms, 0..1.

    Example:
        >>> weights = term_weights(KDConfig(kl_final_weight=0.1, early_tool_ce_weight=0.01), progress=0.5, ramp=0.5)
        >>> round(weights["kl"], 3), weights["early_tool_ce"]
        (0.3, 0.005)
    """
    weights = {}
    for term in TERMS:
        start = getattr(kd, term.weight)
        final = getattr(kd, term.final_weight) if term.final_weight is not None else None
        if start > 0:
            weight = start if final is None else start + (final - start) * progress
            weights[term.name] = weight * ramp if term.ramped else weight
    return weights


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What the terms need to know besides the batch.

    Attributes:
        kd: the config's section.
        eos_ids: ids that end an answer.
        opening_ids: ids that can open a tool call.
        prefix_tokens: most tokens of a call that the early-tool cross-entropy counts.
        logprob_temperature: of the stored teacher log-probabilities.
        hinge_open: of the length loss; None = a hinge per row.
    """

    kd: KDConfig
    eos_ids: tuple[int, ...] = ()
    opening_ids: tuple[int, ...] = ()
    prefix_tokens: int = 25
    logprob_temperature: float = 1.0
    hinge_open: bool | None = None


@dataclass(frozen=True)
class BatchPlan:
    """What the enabled terms count in a batch: from masks alone, so before any forward.

    Attributes:
        counts: of each enabled term.
        length: positions of the length loss, if enabled.
        early: positions of the early-tool loss, if enabled.
    """

    counts: Mapping[str, float]
    length: LengthPlan | None
    early: EarlyToolPlan | None


def plan_batch(batch: Mapping[str, Tensor], settings: LossSettings) -> BatchPlan:
    """The plan of a batch.

    Example:
        >>> import torch
        >>> batch = {"labels": torch.tensor([[-100, 5, 2]]), "source": torch.tensor([1])}
        >>> dict(plan_batch(batch, LossSettings(kd=KDConfig())).counts)
        {'kl': 0.0, 'ce_teacher': 0.0, 'ce_truth': 2.0}
    """
    kd = settings.kd
    enabled = term_weights(kd)
    spans = {"name_weight": kd.name_weight, "args_weight": kd.args_weight}
    counts: dict[str, float] = {"kl": float(count_kl(batch)), "sampled_kl": float(sampled_mask(batch).sum())}
    counts |= {f"ce_{source}": count_ce(batch, source, **spans) for source in SOURCES}
    length = length_plan(batch, settings.eos_ids) if "length" in enabled else None
    if length is not None:
        counts["length"] = float(length.count)
    parts = [part for part in PARTS if part in enabled]
    early = early_tool_plan(batch, max_tokens=settings.prefix_tokens, parts=parts) if parts else None
    if early is not None:
        counts |= {name: float(count) for name, count in early.counts.items()}
    return BatchPlan({name: counts[name] for name in enabled}, length, early)
