"""The entry of `kl`: the divergence from the teacher's stored distribution."""

from __future__ import annotations

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
            remedy="write the teacher's log-probabilities with `kdfast teach CONFIG` (teacher.store), or import them "
            "as teacher_topk",
            present=lambda row: row.taught,
        ),
    )

    def plan(
        self, batch: Batch, positions: Positions, settings: LossSettings, enabled: tuple[str, ...]
    ) -> EntryPlan:
        """See `Entry.plan`; a batch without any teacher distribution has nothing to learn."""
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
