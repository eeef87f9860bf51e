"""The entry of `kl`: the divergence from the teacher's distribution, stored or of a teacher beside the student."""

from __future__ import annotations

import torch

from kdfast.losses.entries.entry import Batch, Entry, EntryPlan, Positions, Taught, TermSpec
from kdfast.losses.entries.settings import LossSettings
from kdfast.losses.rows.teacher import SparseTeacher
from kdfast.losses.term import count_kl
from kdfast.losses.token.divergences import divergence_of


class KL(Entry):
    """Which divergence it is, `kd.divergence` says."""

    name = "kl"
    specs = (
        TermSpec(
            name="kl",
            weight="kl_weight",
            final_weight="kl_final_weight",
            field="teacher_topk_logp",
            remedy="write the teacher's log-probabilities with `kdfast teach CONFIG` (teacher.store), import them as "
            "teacher_topk, or run the teacher beside the student (teacher.live)",
            present=lambda row: row.taught or row.live_teacher,
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`; a batch without any teacher distribution has nothing to learn."""
        if settings.live_teacher:
            return _live_plan(positions, settings)
        counts = {"kl": float(count_kl(batch))}
        if "teacher_topk_mask" not in batch:
            return EntryPlan(counts=counts)
        ids, logp, tail = (
            positions.at(batch[f"teacher_{name}"]) for name in ("topk_ids", "topk_logp", "tail_logp")
        )
        taught = Taught(
            term="kl",
            teacher=SparseTeacher(ids, logp, tail, settings.logprob_temperature),
            known=positions.at(batch["teacher_topk_mask"]),
            divergence=divergence_of(settings.kd),
            temperature=settings.kd.temperature,
        )
        return EntryPlan(counts=counts, taught=taught)


def _live_plan(positions: Positions, settings: LossSettings) -> EntryPlan:
    """A teacher beside the student gives a distribution at every supervised position."""
    taught = Taught(
        term="kl",
        teacher=None,
        known=torch.ones(len(positions.index), dtype=torch.bool, device=positions.index.device),
        divergence=divergence_of(settings.kd),
        temperature=settings.kd.temperature,
    )
    return EntryPlan(counts={"kl": float(len(positions.index))}, taught=taught, teacher="live")
