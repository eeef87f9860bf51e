//! A template's text, rewritten so that the engine reads it as Jinja2 reads the original.

/// The filter that refuses to loop over `none`, as Python does; the engine alone would see an empty list.
pub const ITERABLE: &str = "kdfast_iterable";

/// Rewrites `source`:
/// - `\r\n` and `\r` become `\n`, as Jinja2's lexer does;
/// - `{% generation %}` ... `{% endgeneration %}` (transformers marks the assistant's tokens with it) become a `with`
///   block, which also prints what is inside and has a scope of its own;
/// - the escapes of string literals are resolved as Python resolves them;
/// - what a `for` loops over goes through the filter [`ITERABLE`].
pub fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let read = match rest.as_bytes().get(1) {
            Some(b'#') => copy(rest, rest.find("#}").map_or(rest.len(), |end| end + 2), &mut out),
            Some(b'%' | b'{') => Tag::new(rest, &mut out).rewrite(),
            _ => copy(rest, 1, &mut out),
        };
        rest = &rest[read..];
    }
    out.push_str(rest);
    out
}

fn copy(rest: &str, length: usize, out: &mut String) -> usize {
    out.push_str(&rest[..length]);
    length
}

/// One `{% ... %}` or `{{ ... }}` while it is read.
struct Tag<'a> {
    text: &'a str,
    at: usize,
    out: &'a mut String,
    /// How many brackets are open.
    depth: usize,
    /// A `for` tag: nothing seen yet of what it loops over (`None`), or where that begins in `out`.
    looped: Option<usize>,
    word: &'a str,
}

impl<'a> Tag<'a> {
    /// `text` begins with the tag.
    fn new(text: &'a str, out: &'a mut String) -> Self {
        out.push_str(&text[..2]);
        Self { text, at: 2, out, depth: 0, looped: None, word: "" }
    }

    /// Writes the tag to `out` and returns its length in the text.
    fn rewrite(mut self) -> usize {
        let block = self.text.starts_with("{%");
        let closing = if block { "%}" } else { "}}" };
        loop {
            let rest = &self.text[self.at..];
            let Some(next) = rest.chars().next() else { return self.at };
            if self.depth == 0 && rest.starts_with(closing) {
                self.end_of_looped();
                self.push(2);
                return if self.word == "raw" { self.raw() } else { self.at };
            }
            match next {
                '\'' | '"' => self.string(next),
                '(' | '[' | '{' => {
                    self.depth += 1;
                    self.push(1);
                }
                ')' | ']' | '}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.push(1);
                }
                letter if letter.is_alphanumeric() || letter == '_' => self.name(block),
                other => self.push(other.len_utf8()),
            }
        }
    }

    fn push(&mut self, length: usize) {
        self.out.push_str(&self.text[self.at..self.at + length]);
        self.at += length;
    }

    fn name(&mut self, block: bool) {
        let rest = &self.text[self.at..];
        let length = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(rest.len());
        let name = &rest[..length];
        if block && self.word.is_empty() {
            self.word = name;
            let new = match name {
                "generation" => "with",
                "endgeneration" => "endwith",
                // Known to the engine, which would escape nothing: better an unknown statement.
                "autoescape" => "autoescape_block",
                same => same,
            };
            self.out.push_str(new);
            self.at += length;
            return;
        }
        if self.depth == 0 && matches!(name, "if" | "recursive") {
            self.end_of_looped();
        }
        self.push(length);
        if self.word == "for" && name == "in" && self.depth == 0 && self.looped.is_none() {
            self.looped = Some(self.out.len());
        }
    }

    /// What a `for` loops over ends here: put the filter on it.
    fn end_of_looped(&mut self) {
        if self.word != "for" {
            return;
        }
        if let Some(start) = self.looped.take() {
            let end = self
                .out
                .trim_end_matches(|sign: char| sign.is_whitespace() || matches!(sign, '-' | '+'))
                .len();
            self.out.insert_str(end, &format!(")|{ITERABLE}"));
            self.out.insert_str(start, " (");
            // No second `in` of this tag begins anything.
            self.word = "looping";
        }
    }

    /// A string literal: its escapes resolved, and written with such as the engine knows.
    fn string(&mut self, quote: char) {
        let rest = &self.text[self.at + 1..];
        let mut escaped = false;
        let end = rest.find(|sign| {
            let ends = sign == quote && !escaped;
            escaped = sign == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            self.push(self.text.len() - self.at);
            return;
        };
        let Some(text) = unescape(&rest[..end]) else {
            // The engine would print some of these as they stand: give it an escape that it refuses.
            self.out.push_str("'\\x'");
            self.at += end + 2;
            return;
        };
        self.out.push(quote);
        for sign in text.chars() {
            if sign == quote || sign == '\\' {
                self.out.push('\\');
            }
            self.out.push(sign);
        }
        self.out.push(quote);
        self.at += end + 2;
    }

    /// Copies what is between `{% raw %}` and its end tag.
    fn raw(mut self) -> usize {
        let rest = &self.text[self.at..];
        let mut end = 0;
        while let Some(tag) = rest[end..].find("{%") {
            end += tag;
            let inner = rest[end + 2..]
                .trim_start_matches(|sign: char| sign.is_whitespace() || matches!(sign, '-' | '+'));
            if inner.starts_with("endraw") {
                break;
            }
            end += 2;
        }
        self.push(end);
        self.at
    }
}

/// `str.encode("ascii", "backslashreplace").decode("unicode-escape")`; `None` for an escape that Python refuses, and
/// for one that names a character (`\N{...}`).
fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let sign = rest.chars().next()?;
        let plain = match sign {
            '\\' | '\'' | '"' => Some(sign),
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            _ => None,
        };
        let length = match (plain, sign) {
            (Some(plain), _) => {
                out.push(plain);
                1
            }
            (None, '\n') => 1, // a line that goes on
            (None, 'x' | 'u' | 'U') => {
                let digits = match sign {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let (character, more) = code_point(rest, digits)?;
                out.push(character);
                1 + digits + more
            }
            (None, '0'..='7') => {
                let digits = rest.bytes().take(3).take_while(|digit| (b'0'..=b'7').contains(digit)).count();
                out.push(char::from_u32(u32::from_str_radix(&rest[..digits], 8).ok()?)?);
                digits
            }
            (None, 'N') => return None,
            (None, other) => {
                out.extend(['\\', other]);
                other.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out.push_str(rest);
    Some(out)
}

/// The character of `\u1234` and its like (`text` begins with the letter), and how many bytes of a second escape it
/// took: two halves of a surrogate pair are one character, as transformers' tokenizers see it.
fn code_point(text: &str, digits: usize) -> Option<(char, usize)> {
    let hex = |from: usize, count: usize| {
        let digits = text.get(from..from + count)?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let code = hex(1, digits)?;
    if let Some(character) = char::from_u32(code) {
        return Some((character, 0));
    }
    let low = text.get(1 + digits..).filter(|rest| digits == 4 && rest.starts_with("\\u"));
    low?;
    let low = hex(1 + digits + 2, 4)?;
    let pair = char::decode_utf16([u16::try_from(code).ok()?, u16::try_from(low).ok()?]).next()?.ok()?;
    Some((pair, 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_resolved_as_in_python() {
        assert_eq!(unescape(r"a\U0001F600\x41\101\/\q\t").unwrap(), "a\u{1F600}AA\\/\\q\t");
        assert_eq!(unescape(r"\ud83d\ude00").unwrap(), "\u{1F600}");
        assert_eq!(unescape(r"\ud83d"), None);
        assert_eq!(prepare(r"{{ '\N{BULLET}' }}"), r"{{ '\x' }}");
        assert_eq!(prepare(r#"{{ 'it\'s' + "\\n" }}"#), r#"{{ 'it\'s' + "\\n" }}"#);
    }

    #[test]
    fn loops_get_the_filter_and_nothing_else_does() {
        let looped = |inner: &str| format!("{{% for x in ( {inner})|{ITERABLE} %}}");
        assert_eq!(prepare("{% for x in a.b[0] %}"), looped("a.b[0]"));
        assert_eq!(
            prepare("{%- for x in [y for y in 'in'] -%}"),
            format!("{{%- for x in ( [y for y in 'in'])|{ITERABLE} -%}}")
        );
        assert_eq!(
            prepare("{% for x in a if x in b %}"),
            format!("{{% for x in ( a)|{ITERABLE} if x in b %}}")
        );
        for same in [
            "{% if 'for x in y' in z %}",
            "{{ x in y }}",
            "{# for x in y #}",
            "{% raw %}{% for x in y %}{% endraw %}",
        ] {
            assert_eq!(prepare(same), same);
        }
    }

    #[test]
    fn lines_and_generation_blocks() {
        assert_eq!(
            prepare("a\r\n{%- generation -%}\rb{% endgeneration %}"),
            "a\n{%- with -%}\nb{% endwith %}"
        );
        assert_eq!(prepare("{{ '%}' }}{% set x = {'a': {}} %}{ {"), "{{ '%}' }}{% set x = {'a': {}} %}{ {");
    }
}
