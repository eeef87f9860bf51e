"""The entry of `ce_teacher` and `ce_truth`: cross-entropy on the answer's own tokens, by who wrote the answer."""

from __future__ import annotations

import torch

from kdfast.batch import IGNORE_INDEX, SOURCES
from kdfast.losses.entries.entry import Batch, Entry, EntryPlan, Labels, Positions, TermSpec
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.term import count_ce, span_weights


class CrossEntropy(Entry):
    """One column of labels for both terms: a row belongs to one source."""

    name = "cross_entropy"
    specs = (
        TermSpec(
            name="ce_teacher",
            weight="ce_teacher_weight",
            final_weight="ce_teacher_final_weight",
            field="labels of source teacher",
            remedy="give records with teacher_text or teacher_message",
            present=lambda row: row.source == "teacher",
        ),
        TermSpec(
            name="ce_truth",
            weight="ce_truth_weight",
            final_weight="ce_truth_final_weight",
            field="labels of source truth",
            remedy="give records with truth_text or truth_message",
            present=lambda row: row.source == "truth",
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`."""
        spans = {"name_weight": settings.kd.name_weight, "args_weight": settings.kd.args_weight}
        sources = {f"ce_{source}": (source, number) for source, number in SOURCES.items()}
        ids = positions.at(batch["labels"])  # [N]
        source = batch["source"][positions.rows]  # [N]
        members = {name: (source == sources[name][1]) & (ids != IGNORE_INDEX) for name in enabled}
        used = torch.stack(list(members.values())).any(0)
        weights = positions.at(span_weights(batch, **spans)).to(positions.dtype)
        return EntryPlan(
            counts={name: count_ce(batch, sources[name][0], **spans) for name in enabled},
            labels=Labels(
                ids=ids.masked_fill(~used, IGNORE_INDEX)[:, None],  # [N,1]
                weights=weights[:, None],  # [N,1]
                members=members,
            ),
        )
