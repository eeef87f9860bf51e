use super::*;

mod counting;

const OPTIONS: Options = Options::new(Formats::ALL);
const ALL: Reading<'static> = Reading::new(Formats::ALL);
const HERMES: Reading<'static> = Reading::new(Formats::HERMES);

const CALL: &str = r#"{"name": "f", "arguments": {"a": 1}}"#;

/// The calls as `format:name:span`, `?` after those that are not closed.
fn seen(calls: &[ToolCall], text: &str) -> Vec<String> {
    let one = |call: &ToolCall| {
        let open = if call.closed { "" } else { "?" };
        format!("{}:{}:{}{open}", call.format.name(), call.name, &text[call.span.clone()])
    };
    calls.iter().map(one).collect()
}

fn found(text: &str) -> Vec<String> {
    seen(&scan(text, ALL).calls, text)
}

/// Feeds `text` in pieces of `size` bytes and checks each prefix that ends with a piece.
fn check_stream(text: &str, formats: Formats, size: usize) {
    let mut stream = ToolCallStream::new(Options { formats, ..OPTIONS });
    let mut fed = 0;
    for piece in text.as_bytes().chunks(size) {
        stream.feed(piece);
        fed += piece.len();
        if text.is_char_boundary(fed) {
            let found = scan(&text[..fed], Reading::new(formats));
            assert_eq!(stream.calls(), found.calls, "{:?}", &text[..fed]);
            assert_eq!(stream.attempts(), found.attempts, "{:?}", &text[..fed]);
        }
    }
}

#[test]
fn spans_are_those_of_the_text() {
    let text = "Sure.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\", \"b\": [1]}}\n</tool_call> done";
    let calls = find_tool_calls(text, HERMES);
    assert_eq!(calls.len(), 1);
    let call = &calls[0];
    assert!(text[call.span.clone()].starts_with("<tool_call>\n"));
    assert!(text[..call.span.end].ends_with("\n</tool_call>"));
    assert_eq!(&text[call.name_span.clone()], "f");
    assert_eq!(&text[call.arguments_span.clone()], "{\"a\": \"}</tool_call>\", \"b\": [1]}");
    let keys: Vec<_> = call.key_spans.iter().map(|span| &text[span.clone()]).collect();
    let values: Vec<_> = call.value_spans.iter().map(|span| &text[span.clone()]).collect();
    assert_eq!((keys, values), (vec!["a", "b"], vec!["\"}</tool_call>\"", "[1]"]));
}

#[test]
fn every_format_is_found_between_prose() {
    let openai = r#"{"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}"#;
    let with_id = openai.replacen('{', r#"{"id": "c1", "#, 1);
    let parameters = CALL.replace("arguments", "parameters");
    for (frame, format, span) in [
        (format!("<tool_call>\n{CALL}\n</tool_call>"), "hermes", None),
        (format!("[TOOL_CALLS] [{CALL}]"), "mistral", Some(CALL)),
        (format!("[TOOL_CALLS]{CALL}"), "mistral", None),
        (format!("<|python_tag|>{parameters}"), "llama3", None),
        (parameters.clone(), "llama3", None),
        (format!("```json\n{CALL}\n```"), "fenced", None),
        (format!("```\n[{CALL}]```"), "fenced", Some(CALL)),
        (format!("```tool_call\n{{\"tool_calls\": [{openai}]}}\n```"), "fenced", Some(openai)),
        (format!("[{CALL}]"), "array", Some(CALL)),
        (CALL.to_owned(), "object", None),
        (CALL.replace("name", "tool").replace("arguments", "args"), "object", None),
        (openai.to_owned(), "openai", None),
        (format!("[{with_id}]"), "openai", Some(with_id.as_str())),
        (format!("{{\"content\": null, \"tool_calls\": [{with_id}]}}"), "openai", Some(with_id.as_str())),
        (format!("{{\"tool_calls\": [{CALL}]}}"), "openai", Some(CALL)),
    ] {
        let expected = [format!("{format}:f:{}", span.unwrap_or(&frame))];
        for text in [frame.clone(), format!("So {{é}}: [1] ```py x {frame} and {{\"b\": 2}} <br>")] {
            assert_eq!(found(&text), expected, "{text}");
            let only = Formats::named([format]).unwrap();
            assert_eq!(find_tool_calls(&text, Reading::new(only)).len(), 1, "{text}");
            let call = &scan(&text, Reading::new(only)).calls[0];
            assert_eq!(call.arguments, r#"{"a": 1}"#);
            assert_eq!(&text[call.name_span.clone()], "f");
            for size in [1, 2, 3, 7, 1000] {
                check_stream(&text, Formats::ALL, size);
                check_stream(&text, only, size);
            }
        }
    }
}

#[test]
fn formats_that_are_not_chosen_do_not_count() {
    let texts = [
        (format!("<tool_call>{CALL}</tool_call>"), &["hermes", "granite"][..]),
        (format!("<tool_call>{}</tool_call>", CALL.replace(r#"{"a": 1}"#, r#""{\"a\": 1}""#)), &["granite"]),
        (format!("[TOOL_CALLS]{CALL}"), &["mistral"]),
        (format!("<|python_tag|>{CALL}"), &["llama3"]),
        (format!("```{CALL}```"), &["fenced"]),
        (format!("[{CALL}]"), &["array"]),
        (CALL.to_owned(), &["object"]),
        (CALL.replace("arguments", "parameters"), &["llama3", "object"]),
        (format!("{{\"tool_calls\": [{CALL}]}}"), &["openai"]),
    ];
    for (text, formats) in texts {
        for name in Format::names() {
            let reading = Reading::new(Formats::named([name]).unwrap());
            let found = scan(&text, reading);
            assert_eq!(found.calls.len(), usize::from(formats.contains(&name)), "{name}: {text}");
            assert_eq!(found.attempts.len(), 1 - found.calls.len(), "{name}: {text}");
            check_stream(&text, reading.formats, 1);
        }
    }
}

#[test]
fn parallel_calls_and_broken_ones() {
    let call = |name: &str| format!("<tool_call>{{\"name\":\"{name}\",\"arguments\":{{}}}}</tool_call>");
    let names = |text: &str| -> Vec<String> {
        find_tool_calls(text, HERMES).into_iter().map(|call| call.name).collect()
    };
    assert_eq!(names(&(call("a") + &call("b"))), ["a", "b"]);
    assert_eq!(names(&("<tool_call>".to_owned() + &call("a"))), ["a"]);
    assert_eq!(names(&("<tool_call>{\"name\": ".to_owned() + &call("a"))), ["a"]);
    for broken in [
        "<tool_call>{\"name\":\"f\"}</tool_call>",
        "<tool_call>{\"name\":\"\",\"arguments\":{}}</tool_call>",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool",
        "<tool_call>{\"name\":\"f\",\"arguments\":{},}</tool_call>",
        "<tool_call>{\"name\":1,\"arguments\":{}}</tool_call>",
        "<tool_call>",
        "{\"name\":\"f\",\"arguments\":{}}",
    ] {
        assert!(names(broken).is_empty(), "{broken}");
        let sound = scan(&(call("a") + broken), HERMES).is_sound();
        assert_eq!(sound, broken.starts_with('{'), "{broken}");
    }
}

#[test]
fn lists_hold_calls_and_nothing_else() {
    assert_eq!(found(&format!("[{CALL}, {CALL}]")).len(), 2);
    for (text, complete) in [
        (format!("[{CALL}, 1]"), 1),
        (format!("[1, {CALL}]"), 0),
        (format!("[{{}}, {CALL}]"), 0),
        (format!("[[{CALL}]]"), 0),
        (format!("{{\"tool_calls\": [{CALL}, null]}}"), 1),
        (format!("{{\"a\": {CALL}}}"), 0),
        (format!("[{CALL},]"), 1),
        (format!("[{CALL}"), 1),
        (format!("{{\"tool_calls\": [{CALL}]"), 1),
        (format!("```json\n{CALL}\n``"), 1),
    ] {
        assert_eq!(scan(&text, ALL).calls.len(), complete, "{text}");
        assert!(find_tool_calls(&text, ALL).is_empty(), "{text}");
        check_stream(&text, Formats::ALL, 1);
    }
}

#[test]
fn what_breaks_is_passed_over() {
    let call = format!("object:f:{CALL}");
    for before in [
        "{",
        "[",
        "{\"a\": ",
        "[\"x\", ",
        "a {b} [c]: ",
        "{\"q\": \"",
        "```json\n{\"a\": 1}",
        "[{\"x\": [",
        "{{{ ",
        "“",
    ] {
        assert_eq!(found(&format!("{before}!{CALL}")), std::slice::from_ref(&call), "{before}");
        check_stream(&format!("{before}!{CALL}"), Formats::ALL, 1);
    }
    let deep = "[".repeat(200) + CALL;
    assert_eq!((found(&deep).len(), found(&(deep.clone() + "!")).len()), (0, 1));
    let within = format!("{}{CALL}", "{\"a\":".repeat(100));
    assert_eq!((found(&within).len(), found(&(within.clone() + "!")).len()), (0, 1));
    for text in [deep, within.clone(), within + "!"] {
        check_stream(&text, Formats::ALL, 1);
    }
}

#[test]
fn nesting_ends_at_the_limit() {
    let nested = |depth: usize| {
        let inner = "[".repeat(depth - 2) + &"]".repeat(depth - 2);
        format!("{{\"name\": \"f\", \"arguments\": {{\"a\": {inner}}}}}")
    };
    assert_eq!(found(&nested(128)).len(), 1);
    assert_eq!(found(&nested(129)).len(), 0);
    check_stream(&nested(129), Formats::ALL, 1);
}

#[test]
fn the_stream_says_when_and_where() {
    let mut stream = ToolCallStream::new(OPTIONS);
    assert_eq!(stream.state(), State::Prose);
    let tokens =
        ["Hi ", "<tool", "_call>", "{\"name\": \"f", "\", \"arg", "uments\": ", "{}", "}", "</tool_call>"];
    let mut states = Vec::new();
    for token in tokens {
        stream.feed_token(token.as_bytes());
        states.push(stream.state().name());
    }
    let inside = ["inside"; 5];
    assert_eq!(states, [&["prose", "prose"][..], &inside, &["complete", "complete"]].concat());
    let (complete, name) = (stream.complete_at().unwrap(), stream.name_at().unwrap());
    assert_eq!((complete.token, name.token), (Some(7), Some(4)));
    let text = tokens.concat();
    assert_eq!(
        (&text[..=complete.byte], &text[..=name.byte]),
        (&text[..text.len() - 12], "Hi <tool_call>{\"name\": \"f\"")
    );
    assert!(stream.calls()[0].closed && !stream.more_expected());
}

#[test]
fn lists_expect_more_until_they_end() {
    let text = format!("[{CALL}, {CALL}] ");
    let mut stream = ToolCallStream::new(OPTIONS);
    let seen: String = text
        .bytes()
        .map(|byte| {
            stream.feed(&[byte]);
            match (stream.state(), stream.more_expected()) {
                (State::Inside, false) => 'i',
                (State::Inside, true) => 'I',
                (State::Complete, true) => 'C',
                (State::Complete, false) => 'c',
                _ => '?',
            }
        })
        .collect();
    // A bracket alone may also begin [TOOL_CALLS].
    let call = CALL.len() - 1;
    let expected = format!("?{}CCC{}Ccc", "i".repeat(call), "I".repeat(call));
    assert_eq!(seen, expected);
}

#[test]
fn only_valid_calls_complete_a_stream() {
    let tools = r#"[{"name": "f", "parameters": {"type": "object", "required": ["b"]}}]"#;
    let schema = Some(crate::schema::ToolSchema::cached(tools).unwrap());
    let mut stream = ToolCallStream::new(Options { schema, ..OPTIONS });
    stream.feed(CALL.as_bytes());
    assert_eq!((stream.calls().len(), stream.complete_at(), stream.state()), (1, None, State::Prose));
    let valid = CALL.replace("\"a\"", "\"b\"");
    stream.feed(valid.as_bytes());
    let at = Mark { byte: CALL.len() + valid.len() - 1, token: None };
    assert_eq!((stream.calls().len(), stream.complete_at(), stream.state()), (2, Some(at), State::Complete));
}

#[test]
fn limits_end_a_stream() {
    let mut stream = ToolCallStream::new(Options { max_call_bytes: 50, ..OPTIONS });
    stream.feed("x".repeat(1000).as_bytes());
    stream.feed(b"{\"name\": \"f\", \"arguments\": {}}");
    assert_eq!(stream.state(), State::Complete);
    stream.feed(b"{\"a\": \"");
    stream.feed("x".repeat(43).as_bytes());
    assert_eq!(stream.state(), State::Inside);
    stream.feed(b"x");
    assert_eq!(stream.state(), State::Impossible);
    stream.feed(CALL.as_bytes());
    assert_eq!((stream.calls().len(), stream.state()), (1, State::Impossible));
}

#[test]
fn calls_are_kept_up_to_four_times_the_longest_frame() {
    let call = "{\"name\": \"f\", \"arguments\": {\"k\": \"0123456789\"}} ";
    let text = call.repeat(8);
    for piece in [1, 7, text.len()] {
        let mut stream = ToolCallStream::new(Options { max_call_bytes: 50, ..OPTIONS });
        for bytes in text.as_bytes().chunks(piece) {
            stream.feed(bytes);
        }
        assert_eq!((stream.calls().len(), stream.state()), (5, State::Impossible), "in pieces of {piece}");
    }
}

#[test]
fn bytes_that_are_no_text_break_a_call() {
    let mut stream = ToolCallStream::new(OPTIONS);
    stream.feed(b"\xFF{\"name\": \"\xC3\", \"arguments\": {}}");
    assert!(stream.calls().is_empty());
    stream.feed("{\"name\": \"é\", \"arguments\": {}}".as_bytes());
    assert_eq!(stream.calls()[0].name, "é");
}

#[test]
fn beginnings_of_valid_texts_are_known() {
    let any = |_: &ToolCall| true;
    let texts = [
        format!(" <tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>"),
        format!("So: [1, {{}}] {CALL};{CALL}"),
        format!("[TOOL_CALLS][{CALL}]"),
        format!("```json\n{CALL}\n```"),
        format!("{{\"tool_calls\": [{CALL}, {CALL}]}}"),
        format!("The <tool_call> tag <think><tool_call></think><tool_call>{CALL}</tool_call>"),
    ];
    for text in texts {
        assert!(is_valid_text(&text, None, ALL), "{text}");
        for end in 0..=text.len() {
            assert!(could_become(&text[..end], ALL, any), "{}", &text[..end]);
        }
        assert!(!could_become(&text, ALL, |_| false));
        assert!(!could_become(&format!("{text} <tool_call>[]</tool_call>"), ALL, any));
    }
    for text in [
        "<tool_call>[",
        "<tool_call>{]",
        "<tool_call><function=f>",
        "[TOOL_CALLS][1",
        "{\"name\": \"f\", \"arguments\": 1}",
        "[{\"name\": \"f\", \"arguments\": {}}, 1",
    ] {
        assert!(!could_become(text, ALL, any), "{text}");
    }
}
