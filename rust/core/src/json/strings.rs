//! Strings: resolving their escapes, and writing them.

use std::fmt::Write;

/// The first bytes of a string are read eight at a time: most keys and values are this short. `memchr` reads the rest.
const SHORT: usize = 32;

/// A word whose eight bytes are all `byte`.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The index of the first byte that is not plain inside a string: a quote, a backslash or a control character.
/// `None`: the first [`SHORT`] bytes are all plain.
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes[..bytes.len().min(SHORT)].as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ all(b'"'), word ^ all(b'\\'));
        // `(x - n) & !x` sets the high bit of each byte below n (and of some bytes after it: only the lowest bit
        // counts). After the xor a quote or backslash is 0, which is below 1; a control character is below a space.
        let ends = (quote.wrapping_sub(all(1)) & !quote)
            | (backslash.wrapping_sub(all(1)) & !backslash)
            | (word.wrapping_sub(all(b' ')) & !word);
        let ends = ends & all(0x80);
        if ends != 0 {
            return Some(index * 8 + ends.trailing_zeros() as usize / 8);
        }
    }
    let end = rest.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\')?;
    Some(words.len() * 8 + end)
}

/// `a == b`, without a function call for short texts.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        16..=32 => {
            a.first_chunk::<16>() == b.first_chunk::<16>() && a.last_chunk::<16>() == b.last_chunk::<16>()
        }
        8..16 => a.first_chunk::<8>() == b.first_chunk::<8>() && a.last_chunk::<8>() == b.last_chunk::<8>(),
        4..8 => a.first_chunk::<4>() == b.first_chunk::<4>() && a.last_chunk::<4>() == b.last_chunk::<4>(),
        2..4 => a.first_chunk::<2>() == b.first_chunk::<2>() && a.last() == b.last(),
        _ => a == b,
    }
}

/// Resolves the escapes of a validated string.
pub(crate) fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let code = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match code {
            b'b' => text.push('\u{8}'),
            b'f' => text.push('\u{c}'),
            b'n' => text.push('\n'),
            b'r' => text.push('\r'),
            b't' => text.push('\t'),
            b'u' => {
                let first = code_unit(rest);
                let second =
                    if (0xD800..0xDC00).contains(&first) { Some(code_unit(&rest[6..])) } else { None };
                text.extend(char::decode_utf16([first].into_iter().chain(second)).flatten());
                rest = &rest[if second.is_some() { 10 } else { 4 }..];
            }
            quoted => text.push(char::from(quoted)),
        }
    }
    text.push_str(rest);
    text
}

fn code_unit(hex: &str) -> u16 {
    u16::from_str_radix(&hex[..4], 16).expect("validated by Cursor::hex4")
}

/// `text` as a JSON string, quotes included, as Python's `json.dumps(ensure_ascii=False)` writes it.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => drop(write!(out, "\\u{:04x}", control as u32)),
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Cursor;

    #[test]
    fn plain_characters_end_where_they_do_one_by_one() {
        let ends = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        for first in 0..=255 {
            for second in [b'"', b'a', 0x1F, 0x80, 0xFF, first] {
                for place in 0..40 {
                    let mut bytes = vec![b'z'; 40];
                    bytes[place] = first;
                    bytes[(place * 7 + 1) % 40] = second;
                    let slow = bytes.iter().take(SHORT).position(|&byte| ends(byte));
                    assert_eq!(plain_length(&bytes), slow, "{bytes:?}");
                    let cut = &bytes[..place];
                    assert_eq!(plain_length(cut), cut.iter().take(SHORT).position(|&byte| ends(byte)));
                }
            }
        }
    }

    #[test]
    fn strings_are_unescaped_and_quoted() {
        let text = "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00z\"";
        let string = Cursor::new(text, 0).string().unwrap();
        assert_eq!(string.text(), "a\"\\/\u{8}\u{c}\n\r\té😀z");
        let mut quoted = String::new();
        quote("a\"\\\n\u{1}é", &mut quoted);
        assert_eq!(quoted, "\"a\\\"\\\\\\n\\u0001é\"");
    }

    #[test]
    fn short_texts_are_compared_byte_for_byte() {
        let text: Vec<u8> = (0..40).collect();
        for length in 0..text.len() {
            let a = &text[..length];
            let mut b = a.to_vec();
            assert!(same(a, &b) && !same(a, &text));
            for place in 0..length {
                b[place] ^= 0x80;
                assert!(!same(a, &b), "{length} {place}");
                b[place] ^= 0x80;
            }
        }
    }
}
