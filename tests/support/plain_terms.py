"""The slow twin of `combined_kd_loss`: logits of all supervised positions, and each public loss on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdfast.losses import (
    EarlyToolOptions,
    LossSettings,
    SparseTeacher,
    Term,
    cross_entropy,
    early_tool_call_loss,
    length_aware_kd_loss,
    sampled_kl,
    span_weights,
    supervised_mask,
    term_weights,
)
from kdfast.losses.entries.length import length_options
from kdfast.losses.token.divergences import DIVERGENCES

PARTS = ("ce", "prior", "preamble", "negative")


def plain_terms(
    hidden: Tensor, weight: Tensor, batch: Mapping[str, Tensor], settings: LossSettings
) -> dict[str, Term]:
    """Every enabled term, on the graph, in the order of the table."""
    kd, mask = settings.kd, supervised_mask(batch)
    logits = (hidden @ weight.T)[mask]  # [N,V]
    terms: dict[str, Term] = {}
    if kd.kl_weight:
        ids, logp, tail = (batch[f"teacher_{name}"][mask] for name in ("topk_ids", "topk_logp", "tail_logp"))
        options = {"generalized_jsd": {"beta": kd.jsd_beta}, "skew_kl": {"alpha": kd.skew_alpha}}
        terms["kl"] = DIVERGENCES[kd.divergence].function(
            logits,
            SparseTeacher(ids, logp, tail, settings.logprob_temperature),
            mask=batch["teacher_topk_mask"][mask],
            temperature=kd.temperature,
            **options.get(kd.divergence, {}),
        )
    if kd.sampled_kl_weight:
        counts = batch["teacher_sample_counts"][mask]
        ids = batch["teacher_sample_ids"][mask]
        terms["sampled_kl"] = sampled_kl(logits, ids, counts, mask=(counts > 0).any(-1))
    spans = span_weights(batch, name_weight=kd.name_weight, args_weight=kd.args_weight)[mask]
    for number, name in enumerate(("ce_teacher", "ce_truth")):
        if getattr(kd, f"{name}_weight"):
            own = batch["source"][:, None] == number
            terms[name] = cross_entropy(logits, torch.where(own, batch["labels"], -100)[mask], spans)
    if kd.length_weight:
        terms["length"] = length_aware_kd_loss(
            logits, mask, batch, eos_ids=settings.eos_ids, options=length_options(kd)
        ).term
    wanted = {f"{part}_weight": getattr(kd, f"early_tool_{part}_weight") for part in PARTS}
    if any(wanted.values()):
        options = EarlyToolOptions(
            **wanted, max_tokens=settings.prefix_tokens, max_preamble_tokens=kd.max_preamble_tokens
        )
        terms |= early_tool_call_loss(
            logits, mask, batch, opening_ids=settings.opening_ids, options=options
        ).terms
    return terms


def plain_total(terms: Mapping[str, Term], settings: LossSettings) -> Tensor:
    """Their weighted sum; this batch is the whole step."""
    weights = term_weights(settings.kd)
    return torch.stack([weights[name] * term.mean() for name, term in terms.items()]).sum()
