//! Rows to one padded batch, in one call. Targets are shifted here, once: `labels[t]` and every target mask at `t`
//! describe token `t + 1`, which `logits[t]` must predict.

use half::f16;

use crate::teacher_store::{TeacherRow, TeacherStore, renormalise};
use crate::token_store::{CutRow, List, TokenStore};
use crate::{Error, Result};

/// Label of a position that is no target.
pub const IGNORE_INDEX: i64 = -100;
/// Batches with fewer positions are not worth a second thread.
const POSITIONS_PER_THREAD: usize = 1 << 17;

/// What to make of the rows.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Positions of each row: rows are padded up to it.
    pub length: usize,
    pub pad_id: i64,
    /// 0: as many as are worth it.
    pub threads: usize,
}

/// A batch of `rows` rows: arrays in row-major order, `[rows, length]` unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    pub rows: usize,
    pub length: usize,
    pub input_ids: Vec<i64>,
    /// 1 on tokens.
    pub attention_mask: Vec<i64>,
    pub labels: Vec<i64>,
    pub response_mask: Vec<bool>,
    pub tool_call_mask: Vec<bool>,
    pub tool_name_mask: Vec<bool>,
    pub tool_args_mask: Vec<bool>,
    /// About the tokens themselves, as `attention_mask`: not shifted.
    pub teacher_attention_mask: Vec<i64>,
    pub teacher: Option<TeacherBatch>,
    /// `[rows, prefix_length]`, padded with -100.
    pub teacher_prefix_ids: Vec<i64>,
    pub prefix_length: usize,
    /// `[rows]`, as all below.
    pub tool_should_be_used: Vec<bool>,
    pub required_fields_present: Vec<bool>,
    pub response_start: Vec<i64>,
    pub response_length: Vec<i64>,
    pub teacher_length: Vec<i64>,
    pub source: Vec<i8>,
    pub row: Vec<i64>,
}

/// The teacher's part of a batch; absent when no row has been scored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TeacherBatch {
    pub k: usize,
    /// `[rows, length, k]`.
    pub topk_ids: Vec<i32>,
    /// `[rows, length, k]`.
    pub topk_logp: Vec<f32>,
    /// `[rows, length]`.
    pub tail_logp: Vec<f32>,
    /// `[rows, length]`: the teacher's distribution is known.
    pub mask: Vec<bool>,
}

/// Collates `rows` of `store`. A row that is longer than `shape.length` loses the oldest droppable groups of its
/// conversation; one that is still too long is an error.
pub fn collate(
    store: &TokenStore,
    rows: &[i64],
    shape: Shape,
    teacher: Option<&TeacherStore>,
) -> Result<Batch> {
    let cut: Vec<CutRow> =
        rows.iter().map(|&row| cut_row(store, row, shape.length)).collect::<Result<_>>()?;
    let mut batch = Batch::new(store, rows, &cut, shape)?;
    let scored = match teacher {
        Some(teacher) => {
            let keys = store.row_keys_of(rows, &teacher.header().fingerprint)?;
            keys.iter().map(|key| teacher.get(key)).collect()
        }
        None => Vec::new(),
    };
    check_scores(&cut, &scored)?;
    if let Some(teacher) = teacher.filter(|_| scored.iter().any(Option::is_some)) {
        batch.teacher = Some(TeacherBatch::new(cut.len(), shape.length, teacher.header().k));
    }
    let mut jobs: Vec<Job> = batch.jobs(&cut, &scored);
    let threads = thread_count(shape, jobs.len());
    if threads <= 1 {
        jobs.iter_mut().for_each(Job::fill);
    } else {
        // Threads of our own, gone when the call ends: nothing of a pool survives into a forked worker.
        let per_thread = jobs.len().div_ceil(threads);
        std::thread::scope(|scope| {
            for part in jobs.chunks_mut(per_thread) {
                scope.spawn(move || part.iter_mut().for_each(Job::fill));
            }
        });
    }
    drop(jobs);
    Ok(batch)
}

fn thread_count(shape: Shape, rows: usize) -> usize {
    let wanted = match shape.threads {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            cores.min(rows * shape.length / POSITIONS_PER_THREAD)
        }
        threads => threads,
    };
    wanted.min(rows)
}

fn cut_row(store: &TokenStore, row: i64, length: usize) -> Result<CutRow<'_>> {
    let index =
        usize::try_from(row).map_err(|_| Error::data(format!("row must not be negative, got {row}")))?;
    let view = store.row(index)?;
    CutRow::new(view, length).ok_or_else(|| {
        Error::data(format!(
            "row {row} (line {} of the dataset) has {} tokens and cannot be cut to the length {length}: leave it out \
             (`fit` says -1) or use a longer shape",
            view.line(),
            view.ids().len()
        ))
    })
}

fn check_scores(rows: &[CutRow], scored: &[Option<TeacherRow>]) -> Result<()> {
    for (cut, scored) in rows.iter().zip(scored) {
        let tokens: usize = cut.row.spans(List::Supervised).map(|span| span.len()).sum();
        if let Some(scored) = scored.filter(|scored| scored.tail.len() != tokens) {
            return Err(Error::data(format!(
                "the teacher store has {} tokens for the row of line {}, which has {tokens}: score it again",
                scored.tail.len(),
                cut.row.line()
            )));
        }
    }
    Ok(())
}

impl TeacherBatch {
    fn new(rows: usize, length: usize, k: usize) -> Self {
        let positions = rows * length;
        Self {
            k,
            topk_ids: vec![0; positions * k],
            topk_logp: vec![f32::NEG_INFINITY; positions * k],
            tail_logp: vec![0.0; positions],
            mask: vec![false; positions],
        }
    }
}

impl Batch {
    /// All padding, with the fields of one value a row filled in.
    fn new(store: &TokenStore, rows: &[i64], cut: &[CutRow], shape: Shape) -> Result<Self> {
        let positions = rows.len() * shape.length;
        let prefix: usize = store.header("prefix_tokens")?;
        let longest = cut.iter().map(|cut| cut.row.list(List::TeacherPrefixIds).len()).max();
        let prefix_length = longest.unwrap_or(0).max(prefix);
        let mut teacher_prefix_ids = vec![IGNORE_INDEX; rows.len() * prefix_length];
        for (index, cut) in cut.iter().enumerate() {
            let ids = cut.row.list(List::TeacherPrefixIds);
            widen(&mut teacher_prefix_ids[index * prefix_length..], ids);
        }
        Ok(Self {
            rows: rows.len(),
            length: shape.length,
            input_ids: vec![shape.pad_id; positions],
            attention_mask: vec![0; positions],
            labels: vec![IGNORE_INDEX; positions],
            response_mask: vec![false; positions],
            tool_call_mask: vec![false; positions],
            tool_name_mask: vec![false; positions],
            tool_args_mask: vec![false; positions],
            teacher_attention_mask: vec![0; positions],
            teacher: None,
            teacher_prefix_ids,
            prefix_length,
            tool_should_be_used: cut.iter().map(|cut| cut.row.tool_should_be_used()).collect(),
            required_fields_present: cut.iter().map(|cut| cut.row.required_fields_present()).collect(),
            response_start: cut.iter().map(|cut| cut.response().start as i64).collect(),
            response_length: cut.iter().map(|cut| cut.response().len() as i64).collect(),
            teacher_length: cut.iter().map(|cut| i64::from(cut.row.teacher_length())).collect(),
            source: cut.iter().map(|cut| cut.row.source()).collect(),
            row: rows.to_vec(),
        })
    }

    /// One job a row, each with its own stretch of every array.
    fn jobs<'a>(&'a mut self, cut: &'a [CutRow<'a>], scored: &'a [Option<TeacherRow<'a>>]) -> Vec<Job<'a>> {
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
        let k = self.k;
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
            })
            .collect()
    }
}

/// One row and where its numbers go.
struct Job<'a> {
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
}

impl Job<'_> {
    fn fill(&mut self) {
        let [before, behind] = self.cut.kept(self.cut.row.ids());
        widen(self.input_ids, before);
        widen(&mut self.input_ids[before.len()..], behind);
        self.attention_mask[..self.cut.len()].fill(1);
        for span in self.cut.spans(List::Supervised) {
            let targets = span.start - 1..span.end - 1;
            self.labels[targets.clone()].copy_from_slice(&self.input_ids[span]);
            self.response_mask[targets].fill(true);
        }
        for (list, mask) in &mut self.tool_masks {
            for span in self.cut.spans(*list) {
                // Calls of turns that are not supervised are no targets.
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
        }
    }
}

fn widen(out: &mut [i64], values: &[i32]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = i64::from(value);
    }
}
