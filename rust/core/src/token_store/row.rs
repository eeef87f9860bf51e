//! A row as it lies in the mapped file.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{Int8Type, Int32Type, Int64Type};

use super::columns::{Columns, List};
use super::{RowKey, row_key};

/// One row, read where it lies in the mapped file.
#[derive(Debug, Clone, Copy)]
pub struct RowView<'a> {
    pub(super) columns: &'a Columns,
    pub(super) index: usize,
}

impl<'a> RowView<'a> {
    fn scalar<T: ArrowPrimitiveType>(self, name: &str) -> T::Native {
        self.column(name).as_primitive::<T>().value(self.index)
    }

    fn boolean(self, name: &str) -> bool {
        self.column(name).as_boolean().value(self.index)
    }

    fn text(self, name: &str) -> Option<&'a str> {
        let column = self.column(name).as_string::<i32>();
        column.is_valid(self.index).then(|| column.value(self.index))
    }

    fn column(self, name: &str) -> &'a ArrayRef {
        &self.columns.batch()[name]
    }

    pub fn list(self, list: List) -> &'a [i32] {
        self.columns.list(list, self.index)
    }

    pub fn ids(self) -> &'a [i32] {
        self.list(List::Ids)
    }

    /// The ranges of a span column.
    pub fn spans(self, list: List) -> impl Iterator<Item = Range<usize>> + 'a {
        self.list(list).as_chunks().0.iter().map(|&[start, end]| start as usize..end as usize)
    }

    /// The row's key in the teacher store of `fingerprint`.
    pub fn key(self, fingerprint: &str) -> RowKey {
        row_key(self.ids(), self.list(List::Supervised), self.response().start, fingerprint)
    }

    pub fn response(self) -> Range<usize> {
        let start = self.scalar::<Int32Type>("response_start").max(0) as usize;
        start..start + self.scalar::<Int32Type>("response_length").max(0) as usize
    }

    pub fn teacher_attention_mask(self) -> Option<&'a [u8]> {
        self.columns.mask(self.index)
    }

    pub fn teacher_length(self) -> i32 {
        self.scalar::<Int32Type>("teacher_length")
    }

    pub fn tool_should_be_used(self) -> bool {
        self.boolean("tool_should_be_used")
    }

    pub fn required_fields_present(self) -> bool {
        self.boolean("required_fields_present")
    }

    pub fn prompt_lossy(self) -> bool {
        self.boolean("prompt_lossy")
    }

    /// 0: the teacher's answer, 1: the ground truth.
    pub fn source(self) -> i8 {
        self.scalar::<Int8Type>("source")
    }

    pub fn line(self) -> i64 {
        self.scalar::<Int64Type>("line")
    }

    pub fn validated_arguments(self) -> Option<&'a str> {
        self.text("validated_arguments")
    }

    pub fn finish_reason(self) -> Option<&'a str> {
        self.text("finish_reason")
    }

    pub fn tools(self) -> Option<&'a str> {
        self.text("tools")
    }

    pub fn metadata(self) -> &'a str {
        self.text("metadata").unwrap_or_default()
    }
}
