//! Byte ranges of a text turned into ranges of its tokens.

use std::ops::Range;

use crate::tool_call::ToolCall;

/// A range of token indices.
pub type Span = Range<u32>;

/// Where the parts of a row are, as token indices. A token belongs to a span if it has a byte of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spans {
    /// Whole calls, opening and closing included.
    pub tool_call: Vec<Span>,
    /// The JSON object between opening and closing.
    pub tool_body: Vec<Span>,
    /// The function's name.
    pub tool_name: Vec<Span>,
    /// The whole arguments object.
    pub tool_args: Vec<Span>,
    /// The keys of the arguments object.
    pub arg_keys: Vec<Span>,
    /// The values of the arguments object.
    pub arg_values: Vec<Span>,
    /// The tokens that end a supervised turn.
    pub turn_end: Vec<Span>,
}

/// A call of the last answer, and its tokens.
#[derive(Debug)]
pub struct CallTokens {
    pub call: ToolCall,
    pub tokens: Span,
}

impl Spans {
    /// Adds the spans of `calls`, found in a text whose tokens have the byte `offsets` and begin at token `first`.
    pub fn push_calls(&mut self, calls: Vec<ToolCall>, offsets: &[usize], first: u32) -> Vec<CallTokens> {
        let covered = |bytes: &Range<usize>| {
            let tokens = overlapping(bytes, offsets);
            first + tokens.start..first + tokens.end
        };
        let add = |list: &mut Vec<Span>, bytes: &Range<usize>| {
            if !bytes.is_empty() {
                list.push(covered(bytes));
            }
        };
        let mut found = Vec::with_capacity(calls.len());
        for call in calls {
            add(&mut self.tool_call, &call.span);
            add(&mut self.tool_body, &call.body);
            add(&mut self.tool_name, &call.name_span);
            add(&mut self.tool_args, &call.arguments_span);
            call.key_spans.iter().for_each(|key| add(&mut self.arg_keys, key));
            call.value_spans.iter().for_each(|value| add(&mut self.arg_values, value));
            found.push(CallTokens { tokens: covered(&call.span), call });
        }
        found
    }
}

/// The tokens that have a byte of `bytes` (not empty); `offsets` come from `Tokenizer::byte_offsets`.
fn overlapping(bytes: &Range<usize>, offsets: &[usize]) -> Span {
    let start = offsets[1..].partition_point(|&end| end <= bytes.start);
    let end = offsets[..offsets.len() - 1].partition_point(|&start| start < bytes.end);
    start as u32..end as u32
}

/// The token ranges between neighbouring `boundaries` (bytes); none if a boundary falls inside a token.
pub fn groups(boundaries: &[usize], offsets: &[usize]) -> Vec<Span> {
    let at: Option<Vec<u32>> =
        boundaries.iter().map(|boundary| offsets.binary_search(boundary).ok().map(|i| i as u32)).collect();
    at.unwrap_or_default().windows(2).map(|pair| pair[0]..pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_every_span_that_it_touches() {
        let offsets = [0, 3, 5, 9];
        assert_eq!(overlapping(&(0..3), &offsets), 0..1);
        assert_eq!(overlapping(&(2..4), &offsets), 0..2);
        assert_eq!(overlapping(&(3..9), &offsets), 1..3);
        assert_eq!(overlapping(&(8..9), &offsets), 2..3);
    }

    #[test]
    fn groups_need_every_boundary_between_tokens() {
        assert_eq!(groups(&[3, 5, 9], &[0, 3, 5, 9]), [1..2, 2..3]);
        assert_eq!(groups(&[3, 4], &[0, 3, 5, 9]), []);
        assert_eq!(groups(&[], &[0, 3]), []);
    }
}
