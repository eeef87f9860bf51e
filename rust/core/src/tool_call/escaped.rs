//! Arguments written as a JSON text in a JSON string (`"{\"a\": 1}"`): where each part is in the text around it.

use std::ops::Range;

use crate::json::{Cursor, RawStr};

use super::arguments::Parts;

/// The arguments in `string`; `None` unless it is one JSON object. Spans are places in the outer text.
pub(super) fn arguments(string: &RawStr<'_>) -> Option<Parts> {
    let text = string.text();
    let mut cursor = Cursor::new(&text, 0);
    cursor.skip_space();
    let found = Parts::read(&mut cursor).ok()?;
    cursor.end().ok()?;
    let outer = outer_offsets(string.raw);
    let span = |inner: Range<usize>| {
        let start = string.span.start;
        start + outer[inner.start]..start + outer[inner.end]
    };
    Some(Parts {
        span: span(found.span),
        keys: found.keys.into_iter().map(span).collect(),
        values: found.values.into_iter().map(span).collect(),
        text: found.text,
    })
}

/// For each byte of the unescaped string, and for its end: where in `raw` (valid, without quotes) it is written. In
/// `a\nb` the three bytes are written at 0, 1 and 3, and the end is 4.
fn outer_offsets(raw: &str) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(raw.len() + 1);
    let mut rest = raw;
    while let Some(first) = rest.chars().next() {
        let (written, means) =
            if first == '\\' { escape(rest) } else { (first.len_utf8(), first.len_utf8()) };
        let at = raw.len() - rest.len();
        // All bytes of an escaped character are written at its backslash.
        offsets.extend((0..means).map(|byte| if first == '\\' { at } else { at + byte }));
        rest = &rest[written..];
    }
    offsets.push(raw.len());
    offsets
}

/// The length in bytes of the escape at the start of `rest`, and that of its character.
fn escape(rest: &str) -> (usize, usize) {
    if rest.as_bytes()[1] != b'u' {
        return (2, 1);
    }
    match u32::from_str_radix(&rest[2..6], 16).map(char::from_u32) {
        Ok(Some(character)) => (6, character.len_utf8()),
        // The first half of a surrogate pair; the other half follows.
        _ => (12, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_those_of_the_outer_text() {
        let text = r#"" {\"k\u00e9\ud83d\ude00\": \"é\", \"b\\n\": [1, 2]}\n""#;
        let found = arguments(&Cursor::new(text, 0).string().unwrap()).unwrap();
        assert_eq!(found.text, "{\"ké😀\": \"é\", \"b\\n\": [1, 2]}");
        let keys: Vec<_> = found.keys.into_iter().map(|span| &text[span]).collect();
        let values: Vec<_> = found.values.into_iter().map(|span| &text[span]).collect();
        assert_eq!(keys, [r"k\u00e9\ud83d\ude00", r"b\\n"]);
        assert_eq!(values, [r#"\"é\""#, "[1, 2]"]);
        assert_eq!(&text[found.span], &text[2..text.len() - 3]);
    }
}
