//! Strings: resolving their escapes, and writing them.

use std::fmt::Write;

/// Strings up to this length are read byte by byte, longer ones many bytes at a time: most keys and values are short.
pub(super) const SHORT: usize = 24;

/// The bytes that are no plain characters of a string.
pub(super) static ENDS_PLAIN: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        ends[byte] = true;
        byte += 1;
    }
    ends[b'"' as usize] = true;
    ends[b'\\' as usize] = true;
    ends
};

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
    fn strings_are_unescaped_and_quoted() {
        let text = "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00z\"";
        let string = Cursor::new(text, 0).string().unwrap();
        assert_eq!(string.text(), "a\"\\/\u{8}\u{c}\n\r\té😀z");
        let mut quoted = String::new();
        quote("a\"\\\n\u{1}é", &mut quoted);
        assert_eq!(quoted, "\"a\\\"\\\\\\n\\u0001é\"");
    }
}
