//! A row cut to a length.

use std::ops::Range;

use super::columns::List;
use super::row::RowView;

/// A row without the oldest groups of its conversation's middle: as few are dropped as make it fit.
#[derive(Debug, Clone)]
pub struct CutRow<'a> {
    pub row: RowView<'a>,
    /// The tokens that are dropped. Groups follow each other, so they are one range.
    dropped: Range<usize>,
}

impl<'a> CutRow<'a> {
    /// `None` when the row is longer than `max_length` even without all its droppable groups.
    pub fn new(row: RowView<'a>, max_length: usize) -> Option<Self> {
        let length = row.ids().len();
        let mut dropped = 0..0;
        for group in row.spans(List::DropGroups) {
            if length - dropped.len() <= max_length {
                break;
            }
            let start = if dropped.is_empty() { group.start } else { dropped.start };
            dropped = start..group.end;
        }
        (length - dropped.len() <= max_length).then_some(Self { row, dropped })
    }

    pub fn len(&self) -> usize {
        self.row.ids().len() - self.dropped.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is kept of a list with one entry for each token: the part before the gap and the part after it.
    pub fn kept<'b, T>(&self, values: &'b [T]) -> [&'b [T]; 2] {
        [&values[..self.dropped.start], &values[self.dropped.end..]]
    }

    /// The index in the cut row of token `index` of the whole row; `None` when it is dropped.
    pub fn position(&self, index: usize) -> Option<usize> {
        (!self.dropped.contains(&index)).then(|| self.shift(index))
    }

    fn shift(&self, index: usize) -> usize {
        if index >= self.dropped.end { index - self.dropped.len() } else { index.min(self.dropped.start) }
    }

    /// The ranges of a span column in the cut row, without those that are dropped.
    pub fn spans(&self, list: List) -> impl Iterator<Item = Range<usize>> {
        self.row
            .spans(list)
            .map(|span| self.shift(span.start)..self.shift(span.end))
            .filter(|span| !span.is_empty())
    }

    pub fn response(&self) -> Range<usize> {
        let response = self.row.response();
        self.shift(response.start)..self.shift(response.end)
    }
}
