//! The formats in which models write calls, one row of a table each, and what opens a call.
//!
//! Frames are read alike whichever formats are chosen: the choice only decides which of the calls count. So fewer formats
//! never give more calls.

use super::object::{Allow, Form, Shape};
use super::thinking::{self, Block};

/// A way of writing calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Hermes,
    Granite,
    Mistral,
    Llama3,
    Fenced,
    Array,
    Object,
    OpenAi,
}

/// A format: what is around its JSON, and which JSON it has.
#[expect(clippy::struct_excessive_bools, reason = "the columns of a table")]
#[derive(Debug)]
pub(super) struct Row {
    pub format: Format,
    pub name: &'static str,
    /// What opens a call; empty for bare JSON.
    pub opening: &'static str,
    /// What must follow the JSON.
    pub closing: &'static str,
    /// One call, a JSON object.
    pub object: bool,
    /// A JSON array of calls.
    pub array: bool,
    /// `OpenAI`'s shapes too: `{"type": "function", "function": {...}}` and `{"tool_calls": [...]}`. In these the
    /// arguments may always be a JSON text in a string, or missing.
    pub wide: bool,
    /// In the other shapes too.
    pub strings: bool,
    /// The other row with this opening.
    pub other: Option<Format>,
    /// A word may follow the opening at once (`json`), and the opening is common in texts without calls.
    pub fence: bool,
}

#[rustfmt::skip]
static TABLE: [Row; 8] = [
    Row { format: Format::Hermes,  name: "hermes",  other: Some(Format::Granite),  opening: "<tool_call>",    closing: "</tool_call>", object: true,  array: false, wide: false, strings: false, fence: false },
    Row { format: Format::Granite, name: "granite", other: None, opening: "<tool_call>",    closing: "</tool_call>", object: true,  array: false, wide: false, strings: true,  fence: false },
    Row { format: Format::Mistral, name: "mistral", other: None, opening: "[TOOL_CALLS]",   closing: "",             object: true,  array: true,  wide: false, strings: true,  fence: false },
    Row { format: Format::Llama3,  name: "llama3", other: None,  opening: "<|python_tag|>", closing: "",             object: true,  array: false, wide: false, strings: false, fence: false },
    Row { format: Format::Fenced,  name: "fenced", other: None,  opening: "```",            closing: "```",          object: true,  array: true,  wide: true,  strings: false, fence: true },
    Row { format: Format::Array,   name: "array", other: None,   opening: "",               closing: "",             object: false, array: true,  wide: false, strings: false, fence: false },
    Row { format: Format::Object,  name: "object", other: None,  opening: "",               closing: "",             object: true,  array: false, wide: false, strings: false, fence: false },
    Row { format: Format::OpenAi,  name: "openai", other: None,  opening: "",               closing: "",             object: true,  array: true,  wide: true,  strings: false, fence: false },
];

/// A row for each opening. Rows with the same opening and closing differ in what calls look like.
const OPENINGS: [Format; 4] = [Format::Hermes, Format::Mistral, Format::Llama3, Format::Fenced];

/// The openings that mean a call and nothing else.
pub(super) const CALL_OPENINGS: [&str; 3] = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"];

impl Format {
    /// The format's name in configs and in Python.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].name
    }

    /// The names of all formats.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.name)
    }
}

/// A set of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats(u8);

impl Formats {
    /// Every format.
    pub const ALL: Self = Self(0xFF);
    /// `<tool_call>{...}</tool_call>` alone.
    pub const HERMES: Self = Self(1 << Format::Hermes as u8);

    /// The formats called `names`; the error is the first name that is no format.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self(0), |set, name| {
            let row = TABLE.iter().find(|row| row.name == name).ok_or(name)?;
            Ok(Self(set.0 | 1 << row.format as u8))
        })
    }

    /// The names of these formats, in the order of the table.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.rows().map(|row| row.name)
    }

    /// The texts that open and close calls in these formats.
    pub fn marks(self) -> impl Iterator<Item = &'static str> {
        self.rows().flat_map(|row| [row.opening, row.closing]).filter(|mark| !mark.is_empty())
    }

    fn has(self, format: Format) -> bool {
        self.0 & 1 << format as u8 != 0
    }

    fn rows(self) -> impl Iterator<Item = &'static Row> {
        TABLE.iter().filter(move |row| self.has(row.format))
    }
}

/// The kind of a frame: the row of its opening; `None` = bare JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    row: Option<&'static Row>,
}

/// Where in its frame a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The frame's JSON is the call.
    Alone,
    /// In a JSON array.
    Array,
    /// In the array of an object's `tool_calls`.
    ToolCalls,
}

impl Kind {
    pub const BARE: Self = Self { row: None };

    pub fn opening(self) -> &'static str {
        self.row.map_or("", |row| row.opening)
    }

    pub fn closing(self) -> &'static str {
        self.row.map_or("", |row| row.closing)
    }

    pub fn fence(self) -> bool {
        self.row.is_some_and(|row| row.fence)
    }

    /// Whether the opening means a call and nothing else.
    pub fn tagged(self) -> bool {
        self.row.is_some_and(|row| !row.fence)
    }

    pub fn object(self) -> bool {
        self.row.is_none_or(|row| row.object)
    }

    pub fn array(self) -> bool {
        self.row.is_none_or(|row| row.array)
    }

    /// Whether `OpenAI`'s shapes count.
    pub fn wide(self) -> bool {
        self.row.is_none_or(|row| row.wide)
    }

    pub fn allow(self, place: Place) -> Allow {
        let openai = place == Place::ToolCalls;
        let strings = openai || self.rows().flatten().any(|row| row.strings);
        Allow { wrapped: self.wide(), strings, openai }
    }

    /// Whether a call that opens with an array or an object may be of a chosen format.
    pub fn is_chosen(self, array: bool, chosen: Formats) -> bool {
        match (self.row, array) {
            (Some(_), _) => self.rows().flatten().any(|row| chosen.has(row.format)),
            (None, true) => chosen.has(Format::Array) || chosen.has(Format::OpenAi),
            (None, false) => {
                [Format::Object, Format::OpenAi, Format::Llama3].into_iter().any(|f| chosen.has(f))
            }
        }
    }

    /// The format of a call of `form` at `place`, and whether it is chosen; `None` if no format has such calls.
    pub fn label(self, place: Place, form: Form, chosen: Formats) -> Option<(Format, bool)> {
        if self.row.is_some() {
            let fits = |row: &&Row| row.strings || !form.lenient;
            let mut rows = self.rows().flatten().filter(fits);
            let first = rows.next()?;
            let row = std::iter::once(first).chain(rows).find(|row| chosen.has(row.format));
            return Some((row.unwrap_or(first).format, row.is_some()));
        }
        if form.lenient {
            return None;
        }
        let format = match (place, form.shape) {
            (Place::ToolCalls, _) | (_, Shape::Wrapped) => Format::OpenAi,
            (Place::Array, _) => Format::Array,
            (Place::Alone, Shape::NameAndParameters) if chosen.has(Format::Llama3) => Format::Llama3,
            (Place::Alone, _) => Format::Object,
        };
        Some((format, chosen.has(format)))
    }

    /// The rows with this opening.
    fn rows(self) -> std::array::IntoIter<Option<&'static Row>, 2> {
        let other = self.row.and_then(|row| row.other);
        [self.row, other.map(|format| &TABLE[format as usize])].into_iter()
    }
}

/// Whether a byte may belong to the word right after a fence's opening, such as `json`.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// What a place in the text opens.
#[derive(Debug)]
pub(super) enum Opening {
    Nothing,
    /// The text ends too early to tell (`<tool_c`).
    Undecided {
        /// It also opens bare JSON.
        bare: bool,
        /// The kind of frame that it is most likely to become: more than one byte of its opening is there.
        call: Option<Kind>,
    },
    Thinking(&'static Block),
    Frame(Kind),
}

/// The bytes with which something may open.
static STARTS: [bool; 256] = {
    let mut starts = [false; 256];
    starts[b'<' as usize] = true;
    starts[b'[' as usize] = true;
    starts[b'`' as usize] = true;
    starts[b'{' as usize] = true;
    starts
};

/// Looks for openings outside of frames.
#[derive(Debug, Clone, Default)]
pub(super) struct Prose {
    /// The places of brackets that were open when a frame broke. They are no openings. Ascending.
    doomed: Vec<usize>,
}

impl Prose {
    /// The first place in `bytes` where something may open.
    pub fn next(bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|&byte| STARTS[usize::from(byte)])
    }

    /// What `rest` (not empty), the text from byte `at` on, opens.
    pub fn opening(&self, rest: &[u8], at: usize) -> Opening {
        let bare = matches!(rest[0], b'{' | b'[') && self.doomed.binary_search(&at).is_err();
        if rest[0] != b'{' {
            for row in OPENINGS.iter().map(|&format| &TABLE[format as usize]) {
                if rest.starts_with(row.opening.as_bytes()) {
                    return Opening::Frame(Kind { row: Some(row) });
                }
                if row.opening.as_bytes().starts_with(rest) {
                    let call = (rest.len() > 1 && !row.fence).then_some(Kind { row: Some(row) });
                    return Opening::Undecided { bare, call };
                }
            }
            if let Some(block) = thinking::opening(rest) {
                return Opening::Thinking(block);
            }
            if thinking::may_open(rest) {
                return Opening::Undecided { bare, call: None };
            }
        }
        if bare { Opening::Frame(Kind { row: None }) } else { Opening::Nothing }
    }

    /// The scan resumes at `at`, and the brackets at `open` (ascending) are no openings.
    pub fn doom(&mut self, open: impl Iterator<Item = usize>, at: usize) {
        self.doomed.extend(open);
        self.doomed.retain(|&bracket| bracket >= at);
        self.doomed.sort_unstable();
        self.doomed.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_formats() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.format as usize, index);
        }
        assert_eq!(Formats::named(Format::names()), Ok(Formats::ALL));
        assert_eq!(Formats::named(["hermes"]), Ok(Formats::HERMES));
        assert_eq!(Formats::named(["hermes", "xml"]), Err("xml"));
    }

    #[test]
    fn rows_with_one_opening_know_each_other() {
        for row in &TABLE {
            let others = TABLE.iter().filter(|other| other.opening == row.opening && !row.opening.is_empty());
            let after = others.map(|other| other.format).find(|&other| other as usize > row.format as usize);
            assert_eq!(row.other, after);
        }
    }

    #[test]
    fn each_opening_has_its_first_row() {
        let opening = |row: &&Row| !row.opening.is_empty();
        let mut openings: Vec<_> = TABLE.iter().filter(opening).map(|row| row.opening).collect();
        openings.dedup();
        let firsts = OPENINGS.map(|format| &TABLE[format as usize]);
        assert_eq!(openings, firsts.map(|row| row.opening));
        let calls: Vec<_> = firsts.iter().filter(|row| !row.fence).map(|row| row.opening).collect();
        assert_eq!(calls, CALL_OPENINGS);
    }

    #[test]
    fn openings_are_told_apart_as_soon_as_can_be() {
        let prose = Prose::default();
        let seen = |text: &str| match prose.opening(text.as_bytes(), 0) {
            Opening::Nothing => "nothing",
            Opening::Undecided { bare: true, .. } => "bracket?",
            Opening::Undecided { call: Some(_), .. } => "call?",
            Opening::Undecided { .. } => "tag?",
            Opening::Thinking(_) => "thinking",
            Opening::Frame(kind) => kind.row.map_or("bare", |row| row.name),
        };
        for (text, expected) in [
            ("<", "tag?"),
            ("<tool_call", "call?"),
            ("<th", "tag?"),
            ("<think>", "thinking"),
            ("[THINK]", "thinking"),
            ("<tool_call>", "hermes"),
            ("<|python_tag|>{", "llama3"),
            ("<b>", "nothing"),
            ("[", "bracket?"),
            ("[T", "bracket?"),
            ("[1", "bare"),
            ("[TOOL_CALLS] [", "mistral"),
            ("``", "tag?"),
            ("```json", "fenced"),
            ("`x`", "nothing"),
            ("{", "bare"),
        ] {
            assert_eq!(seen(text), expected, "{text}");
        }
        assert_eq!(Prose::next(b"ab`"), Some(2));
    }
}
