//! Texts made of what calls are made of: gets further than bytes do.
#![no_main]

mod check;

use libfuzzer_sys::fuzz_target;

const FRAGMENTS: [&str; 64] = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "```",
    "```json\n",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    " ",
    "\n",
    "\\",
    "\"name\"",
    "\"tool\"",
    "\"function\"",
    "\"arguments\"",
    "\"parameters\"",
    "\"args\"",
    "\"tool_calls\"",
    "\"f\"",
    "\"\"",
    "{}",
    "[]",
    "null",
    "true",
    "1",
    "-0.5e3",
    "1e400",
    "é",
    "😀",
    "\\u00e9",
    "\\ud83d",
    "\\ude00",
    "\\\"",
    "{\"name\":\"f\",\"arguments\":{}}",
    "{\"name\":\"f\",\"parameters\":{\"a\":[1,\"b\"]}}",
    "{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}}",
    "{\"tool_calls\":[",
    "\"name\":\"f\"",
    "\"arguments\":{}",
    "\"arguments\":\"{}\"",
    "\"a\":",
    "{\"a\":",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "{\"a\":[",
    "{\"",
    "\"}",
    "\",\"",
    "\":\"",
    "<tool",
    "[TOOL",
    "``",
    "x",
    "\u{1}",
    "\\n",
    "0",
    "-",
    "{\"id\":3,",
    "\"type\":\"function\",",
];

fuzz_target!(|input: (u8, Vec<u8>, &[u8])| {
    let (chosen, sizes, picks) = input;
    let text: String =
        picks.iter().take(64).map(|&pick| FRAGMENTS[usize::from(pick) % FRAGMENTS.len()]).collect();
    check::check(text.as_bytes(), &sizes, chosen);
});
