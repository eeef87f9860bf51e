//! The checksum that every row carries.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float16Type, Int8Type, Int32Type, Int64Type, Schema, SchemaRef, UInt8Type,
    UInt16Type, UInt64Type,
};

use super::layout::CHECKSUM_COLUMN;
use super::write::encoding;
use crate::Result;

/// The checksum of row `index`: the first 8 bytes of a blake3 hash, as a little-endian number. Hashed are the row's
/// columns in order, without `row_checksum`. A column gives: one byte, 0 for null, else 1; for lists and text the
/// number of elements or bytes as u64; then the values. Numbers are little-endian, a boolean is one byte.
pub fn row_checksum(batch: &RecordBatch, index: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let schema = batch.schema_ref();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.name() != CHECKSUM_COLUMN {
            hash_value(&mut hasher, column.as_ref(), index);
        }
    }
    let hash = hasher.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(head)
}

fn hash_value(hasher: &mut blake3::Hasher, column: &dyn Array, index: usize) {
    if column.is_null(index) {
        hasher.update(&[0]);
        return;
    }
    hasher.update(&[1]);
    match column.data_type() {
        DataType::List(_) => {
            let values = column.as_list::<i32>().value(index);
            hasher.update(&(values.len() as u64).to_le_bytes());
            hash_values(hasher, values.as_ref(), 0, values.len());
        }
        DataType::Utf8 => {
            let text = column.as_string::<i32>().value(index);
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        DataType::FixedSizeBinary(_) => {
            hasher.update(column.as_fixed_size_binary().value(index));
        }
        DataType::Boolean => {
            hasher.update(&[u8::from(column.as_boolean().value(index))]);
        }
        _ => hash_values(hasher, column, index, 1),
    }
}

fn hash_values(hasher: &mut blake3::Hasher, values: &dyn Array, start: usize, count: usize) {
    fn raw<T: ArrowPrimitiveType>(
        hasher: &mut blake3::Hasher,
        values: &dyn Array,
        start: usize,
        count: usize,
    ) {
        let width = size_of::<T::Native>();
        let bytes = values.as_primitive::<T>().values().inner().as_slice();
        hasher.update(&bytes[start * width..(start + count) * width]);
    }
    match values.data_type() {
        DataType::Int8 => raw::<Int8Type>(hasher, values, start, count),
        DataType::UInt8 => raw::<UInt8Type>(hasher, values, start, count),
        DataType::UInt16 => raw::<UInt16Type>(hasher, values, start, count),
        DataType::Int32 => raw::<Int32Type>(hasher, values, start, count),
        DataType::Int64 => raw::<Int64Type>(hasher, values, start, count),
        DataType::UInt64 => raw::<UInt64Type>(hasher, values, start, count),
        DataType::Float16 => raw::<Float16Type>(hasher, values, start, count),
        other => unreachable!("no store has a column of {other}"),
    }
}

/// A batch of `columns`, to which the last column of `schema` is added: the rows' checksums.
pub fn with_checksums(schema: &SchemaRef, mut columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let fields: Vec<_> = schema.fields()[..columns.len()].to_vec();
    let plain =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.clone()).map_err(|e| encoding(&e))?;
    let sums = (0..plain.num_rows()).map(|row| row_checksum(&plain, row));
    columns.push(Arc::new(UInt64Array::from_iter_values(sums)));
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| encoding(&e))
}

/// Compares every stored checksum with its row: the indices of the rows that do not match.
pub fn audit(batches: &[RecordBatch]) -> Vec<u64> {
    let mut damaged = Vec::new();
    let mut first = 0;
    for batch in batches {
        let stored = batch.column_by_name(CHECKSUM_COLUMN).and_then(|c| c.as_primitive_opt::<UInt64Type>());
        for index in 0..batch.num_rows() {
            if stored.map(|column| column.value(index)) != Some(row_checksum(batch, index)) {
                damaged.push(first + index as u64);
            }
        }
        first += batch.num_rows() as u64;
    }
    damaged
}
