//! What must hold for any bytes.

use std::sync::{Arc, LazyLock};

use kdfast_core::schema::ToolSchema;
use kdfast_core::tool_call::{
    Format, Formats, Options, Reading, Thinking, ToolCallStream, could_become, find_attempts, is_valid_text, scan,
    text_issues,
};

/// Tools called as the fragments call them: with an unusual schema, and with one that is judged without `jsonschema`.
static SCHEMAS: LazyLock<[Arc<ToolSchema>; 2]> = LazyLock::new(|| {
    let unusual = r#"[{"name": "f", "parameters": {"type": "object", "properties": {"a": {"anyOf": [
        {"type": "array", "items": {"type": ["integer", "string", "null"]}, "maxItems": 3, "uniqueItems": true},
        {"type": "object", "minProperties": 1, "propertyNames": {"maxLength": 3}},
        {"enum": [-500, "x", true, null, {"a": [1, "b"]}]},
        {"type": "string", "pattern": "^[a-zé]"}
    ]}}}}]"#;
    let usual = r#"[{"name": "f", "parameters": {"type": "object", "required": ["a"], "properties": {"a": {"anyOf": [
        {"type": "array", "items": {"type": ["integer", "string", "null"]}},
        {"type": "object", "properties": {"a": {"enum": ["x", 1, [1, "b"]]}}, "additionalProperties": {"type": "number"}},
        {"enum": [-500, "x", true, null, {"a": [1, "b"]}]}
    ]}}}}]"#;
    [unusual, usual].map(|tools| Arc::new(ToolSchema::new(tools).unwrap()))
});

/// Feeds `data` in chunks of the `sizes` (over and over) and compares with the whole text, at the end of each chunk. The
/// bits of `chosen` are the formats; those of `how` say whether a thinking block is open, and which tools are known.
pub fn check(data: &[u8], sizes: &[u8], chosen: u8, how: u8) {
    let names =
        Format::names().enumerate().filter(|(index, _)| chosen >> index & 1 == 1).map(|(_, name)| name);
    let formats = if chosen == 0 { Formats::ALL } else { Formats::named(names).unwrap() };
    let text = as_text(data);
    let thinking = if how & 1 == 0 { Thinking::Closed } else { Thinking::Open };
    let tools = SCHEMAS.get(usize::from(how >> 1 & 3));
    let options = Options { tools: tools.cloned(), thinking, ..Options::new(formats) };
    let reading = Reading { formats, thinking, tools: tools.map(|tools| &**tools) };
    let mut stream = ToolCallStream::new(options.clone());
    let (mut fed, mut step) = (0, 0);
    let mut could = true;
    while fed < data.len() {
        let size = sizes.get(step % sizes.len().max(1)).map_or(1, |&size| usize::from(size % 16));
        step += 1;
        let end = (fed + size.max(usize::from(step % 16 == 0))).min(data.len());
        stream.feed(&data[fed..end]);
        fed = end;
        // A character that is cut off may still be completed.
        if text.is_char_boundary(fed)
            && std::str::from_utf8(&data[..fed]).map_or_else(|e| e.error_len().is_some(), |_| true)
            && !ends_in_a_character(&data[..fed])
        {
            let found = scan(&text[..fed], reading);
            assert_eq!(stream.calls(), found.calls, "{:?}", &text[..fed]);
            assert_eq!(stream.attempts(), found.attempts, "{:?}", &text[..fed]);
            let now = could_become(&text[..fed], reading, |_| true);
            assert!(could || !now, "{:?}", &text[..fed]);
            assert!(now || !is_valid_text(&text[..fed], None, reading), "{:?}", &text[..fed]);
            could = now;
        }
    }
    // Quick and full validator. (Once: to say what is wrong takes its time.)
    for schema in SCHEMAS.iter() {
        let issues = text_issues(&text, schema, reading);
        assert_eq!(is_valid_text(&text, Some(schema), reading), issues.is_empty(), "{text:?}");
    }
    // Fewer formats never give more calls, and attempts lie in the text.
    let every = scan(&text, Reading { formats: Formats::ALL, ..reading });
    let bodies: Vec<_> = every.calls.iter().map(|call| &call.body).collect();
    assert!(scan(&text, reading).calls.iter().all(|call| bodies.contains(&&call.body)), "{text:?}");
    assert!(find_attempts(&text, reading).iter().all(|attempt| text.is_char_boundary(attempt.at)), "{text:?}");
    let mut whole = ToolCallStream::new(options);
    whole.feed(data);
    assert_eq!(whole.calls(), stream.calls(), "{text:?}");
    assert_eq!(whole.attempts(), stream.attempts(), "{text:?}");
    for call in stream.calls() {
        let at = |span: &std::ops::Range<usize>| text[span.clone()].to_owned();
        assert!(at(&call.body).starts_with('{') && at(&call.body).ends_with('}'), "{call:?}");
        assert!(call.span.start <= call.body.start && call.body.end <= call.span.end, "{call:?}");
        call.key_spans
            .iter()
            .chain(&call.value_spans)
            .chain([&call.name_span])
            .for_each(|span| drop(at(span)));
    }
}

/// Each byte that is no UTF-8 as a control character, which no JSON string may hold: as long as the bytes.
fn as_text(data: &[u8]) -> String {
    let mut text = String::with_capacity(data.len());
    for chunk in data.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(std::iter::repeat_n('\u{1}', chunk.invalid().len()));
    }
    text
}

/// True when the last bytes may be the beginning of a character.
fn ends_in_a_character(data: &[u8]) -> bool {
    data.utf8_chunks().last().is_some_and(|chunk| {
        std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none())
    })
}
