"""What is minimised: the enabled loss terms, their counts before the forward, their weighted sum after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdfast.config.kd import KDConfig
from kdfast.losses import cross_entropy, forward_kl
from kdfast.losses.term import IGNORE_INDEX, SOURCES, Term, count_ce, count_kl, span_weights

Batch = Mapping[str, Tensor]
FLOOR_COUNT = 1.0  # a term without positions has total 0: any divisor gives 0


@dataclass(frozen=True)
class Objective:
    """The weighted sum of the terms `kl`, `ce_teacher` and `ce_truth`.

    Attributes:
        kd: weights and temperature.
        logprob_temperature: the temperature at which the stored teacher log-probabilities were computed.
    """

    kd: KDConfig
    logprob_temperature: float = 1.0

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term that is switched on."""
        weights = {
            "kl": self.kd.kl_weight,
            "ce_teacher": self.kd.ce_teacher_weight,
            "ce_truth": self.kd.ce_truth_weight,
        }
        return {name: weight for name, weight in weights.items() if weight > 0}

    def counts(self, batch: Batch) -> dict[str, float]:
        """Counted positions of each term, from the masks alone."""
        spans = {"name_weight": self.kd.name_weight, "args_weight": self.kd.args_weight}
        counts = {"kl": float(count_kl(batch))}
        counts |= {f"ce_{source}": count_ce(batch, source, **spans) for source in SOURCES}
        return {name: counts[name] for name in self.weights}

    def terms(self, logits: Tensor, batch: Batch, mask: Tensor) -> dict[str, Term]:
        """The terms on one micro-batch.

        Args:
            logits: [N,V] of the positions in `mask`, in row-major order.
            batch: the batch contract.
            mask: [B,T] bool.
        """
        terms: dict[str, Term] = {}
        weights = self.weights
        if "kl" in weights and "teacher_topk_mask" in batch:
            terms["kl"] = forward_kl(
                logits,
                batch["teacher_topk_ids"][mask],
                batch["teacher_topk_logp"][mask],
                batch["teacher_tail_logp"][mask],
                mask=batch["teacher_topk_mask"][mask],
                temperature=self.kd.temperature,
                logprob_temperature=self.logprob_temperature,
            )
        spans = span_weights(batch, name_weight=self.kd.name_weight, args_weight=self.kd.args_weight)[mask]
        labels, source = batch["labels"], batch["source"][:, None]
        for name, number in SOURCES.items():
            if f"ce_{name}" in weights:
                own = torch.where(source == number, labels, IGNORE_INDEX)[mask]
                terms[f"ce_{name}"] = cross_entropy(logits, own, spans)
        return terms

    def loss(self, terms: Mapping[str, Term], counts: Mapping[str, float]) -> Tensor:
        """The weighted sum of the terms, each divided by its count over the whole step."""
        weights = self.weights
        parts = [term.scaled(weights[name] / max(counts[name], FLOOR_COUNT)) for name, term in terms.items()]
        return torch.stack(parts).sum()
