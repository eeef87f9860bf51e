use super::*;
use crate::json::validate;

/// True when `text` is one object or array.
fn accepts(text: &str) -> bool {
    let mut machine = Machine::new();
    for (at, byte) in text.bytes().enumerate() {
        match machine.push(byte, at) {
            Ok(Event::Closed(_)) if machine.depth() == 0 => return at + 1 == text.len(),
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

#[test]
fn verdicts_are_those_of_the_cursor() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let mut texts = vec![deep(MAX_DEPTH), deep(MAX_DEPTH + 1), format!("[{}]", "9".repeat(310))];
    for value in [
        "",
        "1",
        "-",
        "-0",
        "01",
        "1.",
        "1.5",
        "1.5.5",
        "1e",
        "1e+",
        "1e-5",
        "1E5",
        "1e400",
        "-1e400",
        "1e5.",
        "+1",
        ".5",
        "tru",
        "true",
        "truee",
        "nul",
        "null",
        "false",
        "NaN",
        "Infinity",
        "-Infinity",
        "[]",
        "[,]",
        "[1,]",
        "[1 2]",
        "{}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1}",
        "[}",
        "{]",
        "\"",
        "\"a\"",
        "\"\\q\"",
        "\"\\u12\"",
        "\"\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\ud83dx\"",
        "\"\\ud83d\\n\"",
        "\"\\ud83d\\u0041\"",
        "\"\\udc00\"",
        "\"\\uD83D\\uDE00\"",
        "\"é😀\"",
        "\"\u{7f}\"",
        "\"\n\"",
        "\"\\\n\"",
        " 1 , 2 ",
    ] {
        texts.extend([format!("[{value}]"), format!("{{\"k\": {value} }}"), format!("[ {value}\n,{value}]")]);
    }
    for text in texts {
        assert_eq!(accepts(&text), validate(&text).is_ok(), "{text}");
    }
}

#[test]
fn bytes_of_strings_are_utf_8() {
    let broken = |bytes: &[u8]| {
        let mut machine = Machine::new();
        let text = [b"[\"", bytes, b"\"]"].concat();
        text.iter().enumerate().any(|(at, &byte)| machine.push(byte, at).is_err())
    };
    let mut cases: Vec<Vec<u8>> = (0x80..=0xFF).map(|byte| vec![byte]).collect();
    for first in 0xC0..=0xFF {
        for second in [0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0] {
            for tail in [&[][..], &[0x80], &[0xBF, 0x80], &[0x80, 0xC0]] {
                cases.push([&[first, second], tail].concat());
            }
        }
    }
    for bytes in cases {
        assert_eq!(broken(&bytes), std::str::from_utf8(&bytes).is_err(), "{bytes:x?}");
    }
}

#[test]
fn events_say_what_happened() {
    let mut machine = Machine::new();
    let events: Vec<_> =
        b"{\"a\": [1, {}]}".iter().enumerate().map(|(at, &byte)| machine.push(byte, at)).collect();
    let seen: Vec<_> =
        events.into_iter().map(Result::unwrap).filter(|event| *event != Event::Nothing).collect();
    let expected = [
        Event::Opened,
        Event::Key(1),
        Event::Opened,
        Event::Scalar,
        Event::Opened,
        Event::Closed(10),
        Event::Closed(6),
        Event::Closed(0),
    ];
    assert_eq!(seen, expected);
}
