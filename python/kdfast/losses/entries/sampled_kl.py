"""The entry of `sampled_kl`: cross-entropy on ids drawn from the teacher."""

from __future__ import annotations

from kdfast.losses.entries.entry import Batch, Entry, EntryPlan, Labels, Positions, TermSpec
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.term import sampled_mask
from kdfast.losses.token.sampled_kl import sample_labels


class SampledKL(Entry):
    """S columns of labels, each weighted with its share of the draws."""

    name = "sampled_kl"
    specs = (
        TermSpec(
            name="sampled_kl",
            weight="sampled_kl_weight",
            field="teacher_sample_ids",
            remedy="set teacher.samples and run `kdfast teach CONFIG`",
            present=lambda row: row.drawn,
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`."""
        drawn = sampled_mask(batch)
        counts = {"sampled_kl": float(drawn.sum())}
        if "teacher_sample_counts" not in batch:
            return EntryPlan(counts=counts)
        ids, shares = sample_labels(
            positions.at(batch["teacher_sample_ids"]),
            positions.at(batch["teacher_sample_counts"]),
            positions.vocab,
            positions.dtype,
        )
        members = {"sampled_kl": positions.at(drawn)}
        return EntryPlan(counts=counts, labels=Labels(ids=ids, weights=shares, members=members))
