//! The teacher store's columns: their schema, and how scored rows are written to them and read.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeBinaryArray, Float16Array, Int32Array, ListArray,
    PrimitiveArray, RecordBatch, UInt16Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float16Type, Int32Type, Schema, SchemaRef, UInt16Type};
use half::f16;

use super::header::Header;
use crate::ipc::{self, CHECKSUM_COLUMN};
use crate::row_key::RowKey;
use crate::{Error, Result};

/// The lowest logarithm that is stored for a tail or an opening: finite in half precision, and next to no mass.
pub const FLOOR: f32 = -60.0;

/// Indices of the two columns that a store has only when ids were drawn.
const SAMPLE_IDS: usize = 6;
const SAMPLE_COUNTS: usize = 7;

/// A row's scores before they are stored: `n` tokens with `k` classes each.
#[derive(Debug, Clone, Default)]
pub struct ScoredRow {
    pub key: RowKey,
    /// `n * k`.
    pub ids: Vec<i32>,
    /// `n * k`; -inf where a token has fewer than k.
    pub logp: Vec<f32>,
    /// `n`: log of the mass outside the k.
    pub tail: Vec<f32>,
    /// `n`: log of the mass of tokens that can open a call.
    pub opening: Option<Vec<f32>>,
    /// `n * samples`: the distinct ids that were drawn for a token, then padding.
    pub sample_ids: Vec<i32>,
    /// `n * samples`: how often each was drawn, 0 for padding. The sum over a token is `samples`.
    pub sample_counts: Vec<u16>,
}

impl ScoredRow {
    /// Checks shapes and values against `header`; `row` names it in errors.
    pub fn check(&self, header: &Header, row: usize) -> Result<()> {
        let n = self.tail.len();
        let bad = |what: String| Err(Error::data(format!("scored row {row}: {what}")));
        if self.ids.len() != n * header.k || self.logp.len() != n * header.k {
            return bad(format!(
                "{n} tokens need {} ids and log-probabilities, found {} and {}",
                n * header.k,
                self.ids.len(),
                self.logp.len()
            ));
        }
        if self.opening.as_ref().is_some_and(|opening| opening.len() != n) {
            return bad(format!("call_opening_logp must have {n} entries"));
        }
        if let Some(id) = self.ids.iter().find(|&&id| id < 0 || id as usize >= header.vocab_size) {
            return bad(format!("an id outside the vocabulary of {}: {id}", header.vocab_size));
        }
        self.check_samples(header).or_else(bad)?;
        let all = self.logp.iter().chain(&self.tail).chain(self.opening.iter().flatten());
        // Rounding may make a probability of 1 a little larger.
        match all.into_iter().find(|logp| logp.is_nan() || **logp > 1e-2) {
            Some(logp) => bad(format!("a log-probability must be at most 0: {logp}")),
            None => Ok(()),
        }
    }

    /// What is wrong with the drawn ids, if anything.
    fn check_samples(&self, header: &Header) -> std::result::Result<(), String> {
        let (n, samples) = (self.tail.len(), header.samples);
        if self.sample_ids.len() != n * samples || self.sample_counts.len() != n * samples {
            return Err(format!(
                "{n} tokens need {} drawn ids and counts, found {} and {}",
                n * samples,
                self.sample_ids.len(),
                self.sample_counts.len()
            ));
        }
        if let Some(id) = self.sample_ids.iter().find(|&&id| id < 0 || id as usize >= header.vocab_size) {
            return Err(format!("a drawn id outside the vocabulary of {}: {id}", header.vocab_size));
        }
        for (token, counts) in self.sample_counts.chunks(samples.max(1)).enumerate() {
            let drawn: usize = counts.iter().map(|&count| usize::from(count)).sum();
            if drawn != samples {
                return Err(format!(
                    "the sample counts of token {token} must add up to {samples}, got {drawn}"
                ));
            }
            if !counts.is_sorted_by_key(|&count| count == 0) {
                return Err(format!(
                    "the sample counts of token {token} must not have a 0 before an id that was drawn"
                ));
            }
        }
        Ok(())
    }
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

/// With two more columns if `samples`, the number of ids drawn for each token, is not 0.
pub fn schema(metadata: HashMap<String, String>, samples: usize) -> SchemaRef {
    let mut fields = vec![
        Field::new("key", DataType::FixedSizeBinary(16), false),
        Field::new("length", DataType::Int32, false),
        Field::new("topk_ids", list(DataType::Int32), false),
        Field::new("topk_logp", list(DataType::Float16), false),
        Field::new("tail_logp", list(DataType::Float16), false),
        Field::new("call_opening_logp", list(DataType::Float16), true),
    ];
    if samples > 0 {
        fields.push(Field::new("sample_ids", list(DataType::Int32), false));
        fields.push(Field::new("sample_counts", list(DataType::UInt16), false));
    }
    fields.push(Field::new(CHECKSUM_COLUMN, DataType::UInt64, false));
    Arc::new(Schema::new(fields).with_metadata(metadata))
}

fn lists<T: ArrowPrimitiveType>(
    values: PrimitiveArray<T>,
    lengths: &[usize],
    valid: Option<Vec<bool>>,
) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    let field = Arc::new(Field::new("item", T::DATA_TYPE, false));
    Arc::new(ListArray::new(field, offsets, Arc::new(values), valid.map(Into::into)))
}

fn halves(values: impl Iterator<Item = f32>) -> Float16Array {
    Float16Array::from_iter_values(values.map(f16::from_f32))
}

/// `rows` (checked) as a record batch.
pub fn batch(schema: &SchemaRef, rows: &[ScoredRow]) -> Result<RecordBatch> {
    let keys =
        FixedSizeBinaryArray::try_from_iter(rows.iter().map(|row| row.key)).map_err(|e| ipc::encoding(&e))?;
    let lengths: Vec<usize> = rows.iter().map(|row| row.tail.len()).collect();
    let classes: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
    let openings: Vec<usize> = rows.iter().map(|row| row.opening.as_ref().map_or(0, Vec::len)).collect();
    let known = rows.iter().map(|row| row.opening.is_some()).collect();
    let floored = |value: &f32| value.max(FLOOR);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(keys),
        Arc::new(Int32Array::from_iter_values(lengths.iter().map(|&n| n as i32))),
        lists(
            Int32Array::from_iter_values(rows.iter().flat_map(|row| row.ids.iter().copied())),
            &classes,
            None,
        ),
        lists(halves(rows.iter().flat_map(|row| row.logp.iter().copied())), &classes, None),
        lists(halves(rows.iter().flat_map(|row| row.tail.iter().map(floored))), &lengths, None),
        lists(
            halves(rows.iter().flat_map(|row| row.opening.iter().flatten().map(floored))),
            &openings,
            Some(known),
        ),
    ];
    if has_samples(schema) {
        let drawn: Vec<usize> = rows.iter().map(|row| row.sample_ids.len()).collect();
        let ids = rows.iter().flat_map(|row| row.sample_ids.iter().copied());
        let counts = rows.iter().flat_map(|row| row.sample_counts.iter().copied());
        columns.push(lists(Int32Array::from_iter_values(ids), &drawn, None));
        columns.push(lists(UInt16Array::from_iter_values(counts), &drawn, None));
    }
    ipc::with_checksums(schema, columns)
}

/// Whether `schema`, made by [`schema`], has the columns of drawn ids.
fn has_samples(schema: &Schema) -> bool {
    schema.fields().len() > SAMPLE_COUNTS
}

/// One row, read from the mapped file.
#[derive(Debug, Clone, Copy)]
pub struct TeacherRow<'a> {
    /// `n * k`.
    pub ids: &'a [i32],
    /// `n * k`, as stored: not renormalised.
    pub logp: &'a [f16],
    pub tail: &'a [f16],
    pub opening: Option<&'a [f16]>,
    /// `n * samples`; empty in a store without.
    pub sample_ids: &'a [i32],
    pub sample_counts: &'a [u16],
}

/// Row `index` of a batch with the schema of [`schema`].
pub fn row(batch: &RecordBatch, index: usize) -> TeacherRow<'_> {
    fn values<T: ArrowPrimitiveType>(batch: &RecordBatch, column: usize, index: usize) -> &[T::Native] {
        let list = batch.columns()[column].as_list::<i32>();
        let offsets = list.value_offsets();
        &list.values().as_primitive::<T>().values()[offsets[index] as usize..offsets[index + 1] as usize]
    }
    let sampled = has_samples(batch.schema_ref());
    TeacherRow {
        ids: values::<Int32Type>(batch, 2, index),
        logp: values::<Float16Type>(batch, 3, index),
        tail: values::<Float16Type>(batch, 4, index),
        opening: batch.columns()[5].is_valid(index).then(|| values::<Float16Type>(batch, 5, index)),
        sample_ids: if sampled { values::<Int32Type>(batch, SAMPLE_IDS, index) } else { &[] },
        sample_counts: if sampled { values::<UInt16Type>(batch, SAMPLE_COUNTS, index) } else { &[] },
    }
}

pub fn keys(batch: &RecordBatch) -> impl Iterator<Item = RowKey> {
    let keys = batch.columns()[0].as_fixed_size_binary();
    (0..batch.num_rows()).map(|index| {
        let mut key = RowKey::default();
        key.copy_from_slice(keys.value(index));
        key
    })
}
