//! A row of the mapped file.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{Int8Type, Int32Type, Int64Type};

use super::columns::{Columns, List, SPANS};
use crate::row_key::{RowKey, row_key};
use crate::{Error, Result};

/// One row, read from the mapped file.
#[derive(Debug, Clone, Copy)]
pub struct RowView<'a> {
    columns: &'a Columns,
    index: usize,
}

/// Checks the ranges of every row, so that no later read can leave its row.
pub(super) fn check(columns: &Columns) -> Result<()> {
    (0..columns.len()).try_for_each(|index| check_row(RowView::new(columns, index)))
}

fn check_row(row: RowView<'_>) -> Result<()> {
    let length = row.ids().len();
    let inside = |list: List| {
        let (pairs, rest) = row.list(list).as_chunks();
        rest.is_empty()
            && pairs.iter().all(|&[start, end]| 0 <= start && start <= end && end <= length as i32)
    };
    // What has a target needs a token before it.
    let led = |list: List| list == List::DropGroups || row.spans(list).all(|span| span.start > 0);
    let response = row.response();
    let sound = SPANS.iter().all(|&(list, _)| inside(list) && led(list))
        && response.start > 0
        && response.end <= length
        && [List::Supervised, List::DropGroups].iter().all(|&list| row.list(list).is_sorted())
        && row.teacher_attention_mask().is_none_or(|mask| mask.len() == length);
    if sound {
        Ok(())
    } else {
        Err(Error::data("damaged token store: a row's spans lie outside of it; delete it and build it again"))
    }
}

impl<'a> RowView<'a> {
    pub(super) fn new(columns: &'a Columns, index: usize) -> Self {
        Self { columns, index }
    }

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

    /// Every call of the answer satisfies its tool's schema.
    pub fn call_valid(self) -> bool {
        self.boolean("call_valid")
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
