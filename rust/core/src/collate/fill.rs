//! Fills a batch row by row. Each job has a row and its own slice of every array.

use half::f16;

use super::batch::{Batch, TeacherBatch, widen};
use crate::teacher_store::{TeacherRow, renormalise};
use crate::token_store::{CutRow, List};

impl Batch {
    /// A job for each row, with the row's slice of every array.
    pub(super) fn jobs<'a>(
        &'a mut self,
        cut: &'a [CutRow<'a>],
        scored: &'a [Option<TeacherRow<'a>>],
    ) -> Vec<Job<'a>> {
        let length = self.length.max(1);
        let mut input_ids = self.input_ids.chunks_mut(length);
        let mut attention_mask = self.attention_mask.chunks_mut(length);
        let mut labels = self.labels.chunks_mut(length);
        let mut response_mask = self.response_mask.chunks_mut(length);
        let mut tool_call_mask = self.tool_call_mask.chunks_mut(length);
        let mut tool_name_mask = self.tool_name_mask.chunks_mut(length);
        let mut tool_args_mask = self.tool_args_mask.chunks_mut(length);
        let mut teacher_attention_mask = self.teacher_attention_mask.chunks_mut(length);
        let mut teacher =
            self.teacher.as_mut().map(|teacher| teacher.jobs(length, scored)).into_iter().flatten();
        cut.iter()
            .map_while(|cut| {
                Some(Job {
                    cut,
                    input_ids: input_ids.next()?,
                    attention_mask: attention_mask.next()?,
                    labels: labels.next()?,
                    response_mask: response_mask.next()?,
                    tool_masks: [
                        (List::ToolCall, tool_call_mask.next()?),
                        (List::ToolName, tool_name_mask.next()?),
                        (List::ToolArgs, tool_args_mask.next()?),
                    ],
                    teacher_attention_mask: teacher_attention_mask.next()?,
                    teacher: teacher.next(),
                })
            })
            .collect()
    }
}

impl TeacherBatch {
    fn jobs<'a>(&'a mut self, length: usize, scored: &'a [Option<TeacherRow<'a>>]) -> Vec<TeacherJob<'a>> {
        let (k, samples) = (self.k, self.samples);
        // If `samples == 0`, each job gets an empty slice.
        let width = (length * samples).max(1);
        let mut sample_ids = self.sample_ids.chunks_mut(width);
        let mut sample_counts = self.sample_counts.chunks_mut(width);
        let ids = self.topk_ids.chunks_mut(length * k);
        let logp = self.topk_logp.chunks_mut(length * k);
        let rest = self.tail_logp.chunks_mut(length).zip(self.mask.chunks_mut(length));
        ids.zip(logp)
            .zip(rest)
            .zip(scored)
            .map(|(((ids, logp), (tail, mask)), scored)| TeacherJob {
                k,
                scored: scored.as_ref(),
                ids,
                logp,
                tail,
                mask,
                samples,
                sample_ids: sample_ids.next().unwrap_or_default(),
                sample_counts: sample_counts.next().unwrap_or_default(),
            })
            .collect()
    }
}

/// One row and where its numbers go.
pub(super) struct Job<'a> {
    cut: &'a CutRow<'a>,
    input_ids: &'a mut [i64],
    attention_mask: &'a mut [i64],
    labels: &'a mut [i64],
    response_mask: &'a mut [bool],
    tool_masks: [(List, &'a mut [bool]); 3],
    teacher_attention_mask: &'a mut [i64],
    teacher: Option<TeacherJob<'a>>,
}

struct TeacherJob<'a> {
    k: usize,
    scored: Option<&'a TeacherRow<'a>>,
    ids: &'a mut [i32],
    logp: &'a mut [f32],
    tail: &'a mut [f32],
    mask: &'a mut [bool],
    samples: usize,
    sample_ids: &'a mut [i32],
    sample_counts: &'a mut [i32],
}

impl Job<'_> {
    pub(super) fn fill(&mut self) {
        let [before, after] = self.cut.kept(self.cut.row.ids());
        widen(self.input_ids, before);
        widen(&mut self.input_ids[before.len()..], after);
        self.attention_mask[..self.cut.len()].fill(1);
        for span in self.cut.spans(List::Supervised) {
            let targets = span.start - 1..span.end - 1;
            self.labels[targets.clone()].copy_from_slice(&self.input_ids[span]);
            self.response_mask[targets].fill(true);
        }
        for (list, mask) in &mut self.tool_masks {
            for span in self.cut.spans(*list) {
                // A call in a turn that is not supervised is no target.
                let targets = span.start - 1..span.end - 1;
                mask[targets.clone()].copy_from_slice(&self.response_mask[targets]);
            }
        }
        self.fill_teacher_mask();
        if let Some(teacher) = &mut self.teacher {
            teacher.fill(self.cut);
        }
    }

    fn fill_teacher_mask(&mut self) {
        let Some(given) = self.cut.row.teacher_attention_mask() else {
            self.teacher_attention_mask[self.cut.response()].fill(1);
            return;
        };
        let kept = self.cut.kept(given).into_iter().flatten();
        for (out, &bit) in self.teacher_attention_mask.iter_mut().zip(kept) {
            *out = i64::from(bit);
        }
    }
}

impl TeacherJob<'_> {
    fn fill(&mut self, cut: &CutRow) {
        let (Some(scored), k) = (self.scored, self.k) else { return };
        for (index, token) in cut.row.spans(List::Supervised).flatten().enumerate() {
            let Some(position) = cut.position(token) else { continue };
            let target = position - 1;
            let classes = index * k..(index + 1) * k;
            let logp: &[f16] = &scored.logp[classes.clone()];
            let out = &mut self.logp[target * k..(target + 1) * k];
            if let Some(tail) = renormalise(logp, scored.tail[index], out) {
                self.ids[target * k..(target + 1) * k].copy_from_slice(&scored.ids[classes]);
                self.tail[target] = tail;
                self.mask[target] = true;
            }
            let (from, to) = (index * self.samples, target * self.samples);
            let drawn = from..from + self.samples;
            self.sample_ids[to..to + self.samples].copy_from_slice(&scored.sample_ids[drawn.clone()]);
            widen(&mut self.sample_counts[to..], &scored.sample_counts[drawn]);
        }
    }
}
