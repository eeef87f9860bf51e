//! The formats in which models write calls, one row of a table each, and what opens a call.

use std::sync::OnceLock;

use super::object::{Allow, Shape};

/// A way of writing calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Hermes,
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
    /// `OpenAI`'s shapes too: `{"type": "function", "function": {...}}` and `{"tool_calls": [...]}`.
    pub wide: bool,
    /// A word may follow the opening at once (`json`), and the opening is common in texts without calls.
    pub fence: bool,
}

const TABLE_ROWS: usize = 7;

#[rustfmt::skip]
static TABLE: [Row; TABLE_ROWS] = [
    Row { format: Format::Hermes,  name: "hermes",  opening: "<tool_call>",    closing: "</tool_call>", object: true,  array: false, wide: false, fence: false },
    Row { format: Format::Mistral, name: "mistral", opening: "[TOOL_CALLS]",   closing: "",             object: true,  array: true,  wide: false, fence: false },
    Row { format: Format::Llama3,  name: "llama3",  opening: "<|python_tag|>", closing: "",             object: true,  array: false, wide: false, fence: false },
    Row { format: Format::Fenced,  name: "fenced",  opening: "```",            closing: "```",          object: true,  array: true,  wide: true,  fence: true },
    Row { format: Format::Array,   name: "array",   opening: "",               closing: "",             object: false, array: true,  wide: false, fence: false },
    Row { format: Format::Object,  name: "object",  opening: "",               closing: "",             object: true,  array: false, wide: false, fence: false },
    Row { format: Format::OpenAi,  name: "openai",  opening: "",               closing: "",             object: true,  array: true,  wide: true,  fence: false },
];

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
    pub const ALL: Self = Self(0x7F);
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

    /// What opens calls in these formats; made once.
    fn openings(self) -> &'static Openings {
        static MADE: [OnceLock<Openings>; 1 << TABLE_ROWS] = [const { OnceLock::new() }; 1 << TABLE_ROWS];
        MADE[usize::from(self.0)].get_or_init(|| Openings::new(self))
    }
}

/// The kind of a frame: the row of its opening, or bare JSON in any of `formats`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    row: Option<&'static Row>,
    formats: Formats,
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
        self.row.map_or_else(
            || {
                [Format::Object, Format::OpenAi, Format::Llama3]
                    .into_iter()
                    .any(|format| self.formats.has(format))
            },
            |row| row.object,
        )
    }

    pub fn array(self) -> bool {
        self.row.map_or_else(
            || [Format::Array, Format::OpenAi].into_iter().any(|format| self.formats.has(format)),
            |row| row.array,
        )
    }

    /// Whether `OpenAI`'s shapes count.
    pub fn wide(self) -> bool {
        self.row.map_or_else(|| self.formats.has(Format::OpenAi), |row| row.wide)
    }

    pub fn allow(self, place: Place) -> Allow {
        Allow { wrapped: self.wide(), strings: place == Place::ToolCalls }
    }

    /// The format of a call of `shape` at `place`; `None` if that format was not chosen.
    pub fn format(self, place: Place, shape: Shape) -> Option<Format> {
        if let Some(row) = self.row {
            return Some(row.format);
        }
        let llama3 = shape == Shape::NameAndParameters && self.formats.has(Format::Llama3);
        let format = match (place, shape) {
            (Place::ToolCalls, _) | (_, Shape::Wrapped) => Format::OpenAi,
            (Place::Array, _) => Format::Array,
            (Place::Alone, _) if llama3 => Format::Llama3,
            (Place::Alone, _) => Format::Object,
        };
        self.formats.has(format).then_some(format)
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
    /// The text ends too early to tell (`<tool_c`); `bare`: it also opens bare JSON.
    Undecided {
        bare: bool,
    },
    Frame(Kind),
}

/// What opens calls in a set of formats.
#[derive(Debug)]
struct Openings {
    bare: Kind,
    /// Whether an opening may start with the byte.
    starts: [bool; 256],
    /// The only byte that an opening may start with.
    only: Option<u8>,
    tags: Vec<&'static Row>,
}

impl Openings {
    fn new(formats: Formats) -> Self {
        let bare = Kind { row: None, formats };
        let tags: Vec<_> = formats.rows().filter(|row| !row.opening.is_empty()).collect();
        let mut starts = [false; 256];
        for row in &tags {
            starts[usize::from(row.opening.as_bytes()[0])] = true;
        }
        starts[usize::from(b'{')] |= bare.object();
        starts[usize::from(b'[')] |= bare.array();
        let mut bytes = (0..=255).filter(|&byte: &u8| starts[usize::from(byte)]);
        let only = bytes.next().filter(|_| bytes.next().is_none());
        Self { bare, starts, only, tags }
    }
}

/// Looks for openings outside of frames.
#[derive(Debug, Clone)]
pub(super) struct Prose {
    openings: &'static Openings,
    /// The places of brackets that were open when a frame broke. They are no openings. Ascending.
    doomed: Vec<usize>,
}

impl Prose {
    pub fn new(formats: Formats) -> Self {
        Self { openings: formats.openings(), doomed: Vec::new() }
    }

    /// The first place in `bytes` where a call may open.
    pub fn next(&self, bytes: &[u8]) -> Option<usize> {
        match self.openings.only {
            Some(only) => memchr::memchr(only, bytes),
            None => bytes.iter().position(|&byte| self.openings.starts[usize::from(byte)]),
        }
    }

    /// What `rest` (not empty), the text from byte `at` on, opens.
    pub fn opening(&self, rest: &[u8], at: usize) -> Opening {
        let Openings { bare: kind, tags, .. } = self.openings;
        let bare = match rest[0] {
            b'{' => kind.object(),
            b'[' => kind.array(),
            _ => false,
        } && self.doomed.binary_search(&at).is_err();
        for row in tags {
            if rest.starts_with(row.opening.as_bytes()) {
                return Opening::Frame(Kind { row: Some(row), formats: kind.formats });
            }
            if row.opening.as_bytes().starts_with(rest) {
                return Opening::Undecided { bare };
            }
        }
        if bare { Opening::Frame(*kind) } else { Opening::Nothing }
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
    fn openings_are_told_apart_as_soon_as_can_be() {
        let prose = Prose::new(Formats::ALL);
        let seen = |text: &str| match prose.opening(text.as_bytes(), 0) {
            Opening::Nothing => "nothing",
            Opening::Undecided { bare: true } => "bracket?",
            Opening::Undecided { bare: false } => "tag?",
            Opening::Frame(kind) => kind.row.map_or("bare", |row| row.name),
        };
        for (text, expected) in [
            ("<", "tag?"),
            ("<tool_call", "tag?"),
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
        assert_eq!(prose.next(b"ab`"), Some(2));
        assert_eq!(Prose::new(Formats::HERMES).next(b"{[`<"), Some(3));
    }
}
