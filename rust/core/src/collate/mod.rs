//! Rows to one padded batch, in one call. Targets are shifted here, once: `labels[t]` and every target mask at `t`
//! describe token `t + 1`, which `logits[t]` must predict.

mod fill;

use crate::teacher_store::{Header, TeacherRow, TeacherStore};
use crate::token_store::{CutRow, List, TokenStore};
use crate::{Error, Result};
use fill::Job;

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
    /// Ids drawn a token; 0: the store has none.
    pub samples: usize,
    /// `[rows, length, samples]`.
    pub sample_ids: Vec<i32>,
    /// `[rows, length, samples]`: how often each was drawn, 0 on fill.
    pub sample_counts: Vec<i32>,
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
        batch.teacher = Some(TeacherBatch::new(cut.len(), shape.length, teacher.header()));
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
    fn new(rows: usize, length: usize, header: &Header) -> Self {
        let positions = rows * length;
        let &Header { k, samples, .. } = header;
        Self {
            k,
            topk_ids: vec![0; positions * k],
            topk_logp: vec![f32::NEG_INFINITY; positions * k],
            tail_logp: vec![0.0; positions],
            mask: vec![false; positions],
            samples,
            sample_ids: vec![0; positions * samples],
            sample_counts: vec![0; positions * samples],
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
}

fn widen<W: From<N>, N: Copy>(out: &mut [W], values: &[N]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = W::from(value);
    }
}
