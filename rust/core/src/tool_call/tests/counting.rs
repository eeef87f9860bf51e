//! What counts as a call and what does not: frames taken back, open ones, marks spoken of, thinking blocks.

use super::*;

#[test]
fn a_frame_with_more_than_its_call_has_none() {
    let two = [
        format!("{CALL}{CALL}"),
        format!("{CALL}\n{CALL}"),
        format!("[{CALL}]"),
        format!("[{CALL}, {CALL}]"),
    ];
    let other =
        [format!("{CALL};"), format!("{CALL}}}"), format!("{CALL} x {CALL}"), format!("{CALL}</tool_cal>")];
    for body in two.iter().chain(&other) {
        for (text, closed) in [
            (format!("<tool_call>{body}</tool_call>"), 0),
            (format!("<tool_call>{body}</tool_call><tool_call>{CALL}</tool_call>"), 1),
            (format!("<tool_call>{body}<tool_call>{CALL}</tool_call>"), 1),
        ] {
            for formats in
                (0..=255).map(|bits| Format::names().enumerate().filter(move |(i, _)| bits >> i & 1 == 1))
            {
                let formats = Formats::named(formats.map(|(_, name)| name)).unwrap();
                let hermes =
                    ["hermes", "granite"].iter().any(|name| formats.names().any(|named| named == *name));
                let found = scan(&text, Reading::new(formats));
                assert_eq!(found.calls.len(), if hermes { closed } else { 0 }, "{text}");
                let reason = found.attempts[0].reason;
                assert_eq!((found.attempts[0].at, reason), (0, Reason::Malformed), "{text}");
                assert!(!is_valid_text(&text, None, Reading::new(formats)), "{text}");
            }
            for size in [1, 5, 1000] {
                check_stream(&text, Formats::ALL, size);
                check_stream(&text, Formats::HERMES, size);
            }
        }
    }
}

#[test]
fn a_call_that_its_frame_takes_back_completes_no_stream() {
    let mut stream = ToolCallStream::new(OPTIONS);
    stream.feed_token(format!("<tool_call>{CALL}").as_bytes());
    assert_eq!((stream.calls().len(), stream.complete_at().is_some()), (1, true));
    stream.feed_token(b"{");
    assert_eq!((stream.calls().len(), stream.complete_at(), stream.state()), (0, None, State::Prose));
    stream.feed_token(format!("</tool_call><tool_call>{CALL}").as_bytes());
    assert_eq!(stream.complete_at().unwrap().token, Some(2));
}

#[test]
fn a_missing_closing_leaves_the_call_open() {
    for text in [format!("<tool_call>{CALL}"), format!("<tool_call>{CALL}\n<tool_call>{CALL}</tool_call>")] {
        let found = scan(&text, HERMES);
        assert!(!found.calls[0].closed && !found.is_sound(), "{text}");
        assert_eq!((found.attempts[0].at, found.attempts[0].reason), (0, Reason::Unclosed), "{text}");
        assert_eq!(find_tool_calls(&text, HERMES).len(), found.calls.len() - 1);
        check_stream(&text, Formats::HERMES, 1);
    }
}

#[test]
fn marks_that_are_spoken_of_open_nothing() {
    let call = format!("<tool_call>{CALL}</tool_call>");
    for text in [
        format!("The <tool_call> tag: {call}"),
        format!("The <tool_call> and the <tool_call> tag: {call}"),
        format!("<tool_call><tool_call>{CALL}</tool_call>"),
        format!("`<tool_call>` and \"[TOOL_CALLS]\": {call}"),
        format!("{call} as <tool_call> says"),
    ] {
        assert_eq!(find_tool_calls(&text, ALL).len(), 1, "{text}");
        assert!(is_valid_text(&text, None, ALL), "{text}");
        check_stream(&text, Formats::ALL, 1);
    }
}

#[test]
fn thinking_blocks_hold_no_calls() {
    let call = format!("<tool_call>{CALL}</tool_call>");
    let opened = Reading { thinking: Thinking::Open, ..HERMES };
    for (text, closed, open) in [
        (format!("<think>{call}</think>{call}"), 1, 1),
        (format!("<think>{call}"), 0, 0),
        (format!("{call}</think>{call}"), 2, 1),
        (format!("x {call}"), 1, 0),
        (format!("{call}<think>{call}</think>{call}<think>"), 2, 1),
        (format!("[THINK]{{\"a[/THINK]{call}"), 1, 1),
        (format!("<think>[/THINK]{call}</think>{call}"), 1, 2),
        (format!("<tool_call>{}</tool_call>", CALL.replace('1', "\"<think>\"")), 1, 0),
    ] {
        for (reading, expected) in [(HERMES, closed), (opened, open)] {
            let found = scan(&text, reading);
            assert_eq!(found.calls.len(), expected, "{text}");
            assert_eq!(find_attempts(&text, reading), [], "{text}");
            for size in [1, 3, 1000] {
                let mut stream = ToolCallStream::new(Options { thinking: reading.thinking, ..OPTIONS });
                text.as_bytes().chunks(size).for_each(|piece| stream.feed(piece));
                assert_eq!(stream.calls(), found.calls, "{text}");
            }
        }
    }
}

#[test]
fn the_tokens_of_thinking_blocks_are_counted() {
    let count = |tokens: &[&str], thinking| {
        let mut stream = ToolCallStream::new(Options { thinking, ..OPTIONS });
        for token in tokens {
            stream.feed_token(token.as_bytes());
        }
        stream.thinking_tokens()
    };
    assert_eq!(count(&["a", "<th", "ink>", "b", "</think", ">c", "d"], Thinking::Closed), 5);
    assert_eq!(count(&["b", "c", "</think>", "d", "<think>", "e"], Thinking::Open), 5);
    assert_eq!(count(&["<think", "ing>"], Thinking::Closed), 0);
    let long = "x".repeat(100);
    assert_eq!(count(&["<think>", &long, &long, "</think>"], Thinking::Closed), 4);
}
