//! A row cut to a length.

use std::ops::Range;

use super::columns::List;
use super::row::RowView;

/// A row with the oldest groups of its conversation's middle dropped, as few as make it fit.
#[derive(Debug, Clone)]
pub struct CutRow<'a> {
    pub row: RowView<'a>,
    /// The tokens left out: groups follow each other, so it is one range.
    dropped: Range<usize>,
}

impl<'a> CutRow<'a> {
    /// `None` when the row does not fit into `max_length` even without all its droppable groups.
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

    /// What is kept of a list with one entry a token: before and behind the gap.
    pub fn kept<'b, T>(&self, values: &'b [T]) -> [&'b [T]; 2] {
        [&values[..self.dropped.start], &values[self.dropped.end..]]
    }

    /// Where token `index` of the whole row stands now; `None` when it is left out.
    pub fn position(&self, index: usize) -> Option<usize> {
        (!self.dropped.contains(&index)).then(|| self.shift(index))
    }

    fn shift(&self, index: usize) -> usize {
        if index >= self.dropped.end { index - self.dropped.len() } else { index.min(self.dropped.start) }
    }

    /// The ranges of a span column where they stand now; those left out are missing.
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
