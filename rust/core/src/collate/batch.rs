//! A batch before its rows are filled in.

use crate::Result;
use crate::teacher_store::Header;
use crate::token_store::{CutRow, List, TokenStore};

/// Label of a position that is no target.
pub const IGNORE_INDEX: i64 = -100;

/// The shape of a batch, and what pads it.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Positions of each row; shorter rows are padded to it.
    pub length: usize,
    pub pad_id: i64,
    /// Number of threads; 0: as many as are worth it.
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
    /// Describes the tokens themselves, like `attention_mask`: not shifted.
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
    /// Ids drawn for each token; 0: the store has none.
    pub samples: usize,
    /// `[rows, length, samples]`.
    pub sample_ids: Vec<i32>,
    /// `[rows, length, samples]`: how often each was drawn; 0 where there is none.
    pub sample_counts: Vec<i32>,
}

impl TeacherBatch {
    pub(super) fn new(rows: usize, length: usize, header: &Header) -> Self {
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
    /// All padding; the fields with one value for each row are filled in.
    pub(super) fn new(store: &TokenStore, rows: &[i64], cut: &[CutRow], shape: Shape) -> Result<Self> {
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

/// Copies `values` to the start of `out`.
pub(super) fn widen<W: From<N>, N: Copy>(out: &mut [W], values: &[N]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = W::from(value);
    }
}
