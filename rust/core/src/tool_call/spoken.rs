//! Marks that are only spoken of: `The <tool_call> tag` opens no call.

/// After this many bytes it is prose.
const LONGEST: usize = 64;

/// What stands before a colon in an attempt: the keys of a call, and the word of `FunctionGemma`.
const KEYS: [&[u8]; 4] = [b"name", b"tool", b"function", b"call"];

/// Whether `said`, the text after the opening of a call and white space, is prose and no attempt at a call. It does not
/// begin with a bracket of JSON. `None`: it is too short to tell.
///
/// An attempt begins as one of these does: `<function=f>`, `<name>`, `f(x=1)`, `f[ARGS]{}`, `f{}`, `f<arg_key>`,
/// `call:f{}`, `"name":`, a JSON text in quotes, a fence; or it is the closing. `gap` is the white space before it: after a
/// blank, tags and names are prose; so is a closing right after the opening.
pub(super) fn is_prose(said: &[u8], gap: &[u8], openings: &[&str]) -> Option<bool> {
    let spaced = gap.starts_with(b" ");
    if said.len() > LONGEST {
        return Some(true);
    }
    match said {
        [] => None,
        [b'<', rest @ ..] => {
            if openings.iter().any(|opening| said.starts_with(opening.as_bytes())) {
                return Some(true); // the mark said twice
            }
            if openings.iter().any(|opening| opening.as_bytes().starts_with(said)) {
                return None;
            }
            match rest {
                [] | [b'/'] => None,
                _ if spaced => Some(true),
                [b'/', ..] if gap.is_empty() => Some(true),
                [b'/', rest @ ..] => after(rest, b"tool_call>").map(|closing| !closing),
                [next, ..] => Some(!next.is_ascii_alphabetic()),
            }
        }
        [b'"' | b'\'', rest @ ..] => match rest {
            [] => None,
            [b'{' | b'[', ..] => Some(false),
            _ => {
                let name = rest.iter().take_while(|byte| is_of_name(**byte)).count();
                key_ends(&rest[name..])
            }
        },
        [b'`', ..] => after(said, b"```").map(|fence| !fence),
        [first, ..] if first.is_ascii_alphabetic() || *first == b'_' => {
            let name = said.iter().take_while(|byte| is_of_name(**byte)).count();
            match &said[name..] {
                [] => None,
                [b'(' | b'{' | b'[', ..] if spaced => Some(true),
                [b'(' | b'{', ..] => Some(false),
                [b':', ..] => Some(!KEYS.contains(&&said[..name])),
                rest @ [b'"' | b'\'', ..] => key_ends(rest),
                rest @ [b'[', ..] => {
                    let marks = [after(rest, b"[ARGS]"), after(rest, b"[CALL_ID]")];
                    if marks.contains(&Some(true)) {
                        Some(false)
                    } else {
                        (!marks.contains(&None)).then_some(true)
                    }
                }
                rest => {
                    let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                    after(&rest[space..], b"<arg_key>").map(|key| !key)
                }
            }
        }
        _ => Some(true),
    }
}

/// Whether `rest`, the text after a name, is prose, and not a quote and a colon as a key of JSON has.
fn key_ends(rest: &[u8]) -> Option<bool> {
    match rest {
        [] => None,
        [b'"' | b'\'', rest @ ..] => {
            let space = rest.iter().take_while(|byte| **byte == b' ').count();
            rest.get(space).map(|next| *next != b':')
        }
        _ => Some(true),
    }
}

/// Whether `text` begins with `mark`; `None` if it is the beginning of it.
fn after(text: &[u8], mark: &[u8]) -> Option<bool> {
    if text.starts_with(mark) {
        return Some(true);
    }
    (!mark.starts_with(text)).then_some(false)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::super::formats::CALL_OPENINGS;
    use super::*;

    #[test]
    fn attempts_are_told_from_prose_once_enough_is_there() {
        for (said, prose) in [
            ("tag: ", Some(true)),
            ("tag", None),
            ("and </tool_call> stand", Some(true)),
            ("<tool_call>", Some(true)),
            ("<tool_", None),
            ("<function=f>", Some(false)),
            ("<b", Some(false)),
            ("<= 3", Some(true)),
            ("</tool_call>", Some(false)),
            ("</tool", None),
            ("</b>", Some(true)),
            ("f(a=1)", Some(false)),
            ("f[ARGS]{", Some(false)),
            ("f[CALL_ID]", Some(false)),
            ("f[AR", None),
            ("f[1]", Some(true)),
            ("f{", Some(false)),
            ("f\n<arg_key>", Some(false)),
            ("f\n<ar", None),
            ("f\n<b>", Some(true)),
            ("call:f", Some(false)),
            ("so: x", Some(true)),
            ("\"{", Some(false)),
            ("\"", None),
            ("\"quoted", None),
            ("\"quoted\" x", Some(true)),
            ("\"so said", Some(true)),
            ("\"name\" :", Some(false)),
            ("name\": \"f\"", Some(false)),
            ("name: f", Some(false)),
            ("it's", Some(true)),
            ("```json", Some(false)),
            ("` stands", Some(true)),
            (", it", Some(true)),
            ("é", Some(true)),
            (&"a".repeat(65), Some(true)),
        ] {
            assert_eq!(is_prose(said.as_bytes(), b"\n", &CALL_OPENINGS), prose, "{said}");
        }
    }

    #[test]
    fn after_a_blank_tags_and_names_are_prose() {
        for (said, prose) in [
            ("tag(s)", true),
            ("element{s}", true),
            ("item[ARGS]", true),
            ("<b>tag</b>", true),
            ("\"{", false),
            ("\"name\":", false),
            ("```json", false),
        ] {
            assert_eq!(is_prose(said.as_bytes(), b" ", &CALL_OPENINGS), Some(prose), "{said}");
        }
        assert_eq!(is_prose(b"</tool_call>", b"", &CALL_OPENINGS), Some(true));
    }

    #[test]
    fn a_verdict_stays() {
        for text in
            ["f[ARGS]{", "f[CALL_ID]1[ARGS]", "<function=f>", "tag: x", "f \n<arg_key>", "<tool_call>{"]
        {
            let verdicts: Vec<_> = (1..=text.len())
                .filter_map(|end| is_prose(&text.as_bytes()[..end], b"", &CALL_OPENINGS))
                .collect();
            assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]), "{text}: {verdicts:?}");
        }
    }
}
