//! Calls in a whole text. A frame is read the fast way if it has one plain call, else as whole JSON, and byte by byte
//! only if it is not well-formed.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::flat::Entry;
use crate::json::{Cursor, JsonError, Kind as JsonKind};

use super::call::ToolCall;
use super::formats::{Format, Formats, Kind, Opening, Place, Prose, is_word};
use super::frame::{Frame, Progress, Window};
use super::object::{self, Call, Fields, LIST_KEY};
use super::plain::{self, Plain};

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Every complete call, in order; those whose frame is cut off or broken are not `closed`.
    pub calls: Vec<ToolCall>,
    /// Something opens like a call and is not one, or the text ends inside a frame.
    pub broken: bool,
}

impl Scan {
    /// At least one call, and nothing broken.
    pub fn is_sound(&self) -> bool {
        !self.calls.is_empty() && !self.broken
    }
}

/// Every complete call in `text`, in order. See [`super`] for what counts as one.
pub fn find_tool_calls(text: &str, formats: Formats) -> Vec<ToolCall> {
    let mut calls = scan(text, formats).calls;
    calls.retain(|call| call.closed);
    calls
}

/// Every complete call in `text`, closed or not, and whether anything is broken. Takes time linear in the text.
pub fn scan(text: &str, formats: Formats) -> Scan {
    let mut calls = Vec::new();
    let broken = walk(text, formats, |seen| calls.push(seen.into_call()));
    Scan { calls, broken }
}

/// A call that [`walk`] has found.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    /// In the plainest form, alone in a whole frame.
    Plain(Plain<'a>),
    /// In a whole frame.
    Whole(Item<'a>),
    /// In a frame that may be broken.
    Other(ToolCall),
}

/// A call, not copied.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    format: Format,
    call: Call<'a>,
    span: Range<usize>,
    closed: bool,
}

impl Item<'_> {
    pub fn name(&self) -> Cow<'_, str> {
        self.call.name.text()
    }

    /// The arguments object's JSON text.
    pub fn arguments(&self) -> &str {
        self.call.arguments.text()
    }
}

impl Seen<'_> {
    fn into_call(self) -> ToolCall {
        match self {
            Self::Plain(plain) => plain.into_call(0),
            Self::Whole(Item { format, call, span, closed }) => {
                ToolCall { closed, span, ..ToolCall::new(format, call, 0) }
            }
            Self::Other(call) => call,
        }
    }
}

/// Calls `seen` with every complete call in `text`, closed or not; true when anything is broken.
pub(crate) fn walk(text: &str, formats: Formats, mut seen: impl FnMut(Seen<'_>)) -> bool {
    let bytes = text.as_bytes();
    let mut prose = Prose::new(formats);
    let mut broken = false;
    let mut entries = Vec::<Entry>::with_capacity(32);
    let mut at = 0;
    while let Some(start) = prose.next(&bytes[at..]).map(|next| at + next) {
        at = match prose.opening(&bytes[start..], start) {
            Opening::Nothing => start + 1,
            Opening::Undecided { bare } => return broken || bare,
            Opening::Frame(kind) => {
                if let Some(plain) = plain::frame(text, start, kind, &mut entries) {
                    let next = plain.end();
                    seen(Seen::Plain(plain));
                    next
                } else {
                    let other = other_frame(text, start, kind, &mut prose, &mut seen);
                    broken |= other.broken;
                    match other.next {
                        Some(next) => next,
                        None => return broken,
                    }
                }
            }
        };
    }
    broken
}

/// What reading a frame gave.
struct Read {
    broken: bool,
    /// Where the scan resumes; `None` if the text ends inside the frame.
    next: Option<usize>,
}

/// Reads a frame that is not plain.
fn other_frame(
    text: &str,
    start: usize,
    kind: Kind,
    prose: &mut Prose,
    seen: &mut impl FnMut(Seen<'_>),
) -> Read {
    let mut items = Vec::new();
    if let Some(Whole { end, spoiled }) = whole_frame(text, start, kind, &mut items) {
        let broken = if items.is_empty() { kind.tagged() } else { spoiled };
        for item in items {
            seen(Seen::Whole(item));
        }
        return Read { broken, next: Some(end) };
    }
    let mut calls = Vec::new();
    let read = careful_frame(text.as_bytes(), start, kind, prose, &mut calls);
    for call in calls {
        seen(Seen::Other(call));
    }
    read
}

/// True when `text` could be the beginning of a text that has only calls that are complete and pass `valid`.
///
/// `false` is final: no continuation can help. There may be white space around calls, but no prose.
pub fn could_become(text: &str, formats: Formats, valid: impl Fn(&ToolCall) -> bool) -> bool {
    let bytes = text.as_bytes();
    let prose = Prose::new(formats);
    let mut calls = Vec::new();
    let mut at = 0;
    while let Some(start) =
        bytes[at..].iter().position(|byte| !b" \n\r\t".contains(byte)).map(|next| at + next)
    {
        let kind = match prose.opening(&bytes[start..], start) {
            Opening::Nothing => return false,
            Opening::Undecided { .. } => return true,
            Opening::Frame(kind) => kind,
        };
        calls.clear();
        let mut frame = Frame::new(kind, start, 0);
        let (end, progress) = run(&mut frame, bytes, start + kind.opening().len(), &mut calls);
        let sound = !frame.spoiled() && calls.iter().all(&valid);
        match progress {
            Progress::Going => return sound && !frame.barren(),
            Progress::Closed if sound && frame.has_calls() => at = end,
            _ => return false,
        }
    }
    true
}

/// Pushes `bytes` from `at` on into `frame` until it ends. Returns where it stopped, and why.
fn run(frame: &mut Frame, bytes: &[u8], mut at: usize, calls: &mut Vec<ToolCall>) -> (usize, Progress) {
    let window = Window { bytes, base: 0 };
    loop {
        at += frame.plain(&bytes[at..]);
        if at == bytes.len() {
            return (at, Progress::Going);
        }
        let progress = frame.push(at, window, calls);
        at += 1;
        if progress != Progress::Going {
            return (at, progress);
        }
    }
}

/// Reads a frame that may be broken.
fn careful_frame(
    bytes: &[u8],
    start: usize,
    kind: Kind,
    prose: &mut Prose,
    calls: &mut Vec<ToolCall>,
) -> Read {
    let mut frame = Frame::new(kind, start, 0);
    let (end, progress) = run(&mut frame, bytes, start + kind.opening().len(), calls);
    let (broken, next) = match progress {
        Progress::Going => (frame.begun(), None),
        Progress::Closed => (frame.failed(true), Some(end)),
        Progress::Broken { resume } => {
            prose.doom(frame.open(), resume);
            (frame.failed(false), Some(resume))
        }
    };
    Read { broken, next }
}

/// A frame that was closed.
struct Whole {
    end: usize,
    spoiled: bool,
}

/// Reads a frame; `None` if it is not whole (`items` may then have calls that do not count).
fn whole_frame<'a>(text: &'a str, start: usize, kind: Kind, items: &mut Vec<Item<'a>>) -> Option<Whole> {
    let mut body = start + kind.opening().len();
    if kind.fence() {
        body += text.as_bytes()[body..].iter().take_while(|&&byte| is_word(byte)).count();
    }
    let mut cursor = Cursor::new(text, body);
    let mut reader = Reader { kind, items, spoiled: false, listed: false };
    match cursor.peek().ok()? {
        JsonKind::Object if kind.object() => reader.alone(&mut cursor, start),
        JsonKind::Array if kind.array() => reader.list(&mut cursor, Place::Array),
        _ => return None,
    }
    .ok()?;
    let Reader { items, spoiled, listed, .. } = reader;
    if !kind.closing().is_empty() {
        cursor.skip_space();
    }
    let end = cursor.position() + kind.closing().len();
    text[cursor.position()..].starts_with(kind.closing()).then(|| {
        for item in items {
            item.closed = !spoiled;
            if !listed {
                item.span.end = end;
            }
        }
        Whole { end, spoiled }
    })
}

/// Reads a frame's JSON.
struct Reader<'i, 'a> {
    kind: Kind,
    items: &'i mut Vec<Item<'a>>,
    spoiled: bool,
    listed: bool,
}

impl<'a> Reader<'_, 'a> {
    /// Reads an object: a call, or one with a list of calls under [`LIST_KEY`].
    fn alone(&mut self, cursor: &mut Cursor<'a>, start: usize) -> Result<(), JsonError> {
        let allow = self.kind.allow(Place::Alone);
        let mut fields = Fields::default();
        let body = cursor.position();
        cursor.object(|cursor, key| {
            if self.kind.wide() && key.text() == LIST_KEY && cursor.peek()? == JsonKind::Array {
                return self.list(cursor, Place::ToolCalls);
            }
            fields.entry(cursor, &key, allow)
        })?;
        let call = if self.listed { None } else { fields.call(body..cursor.position()) };
        if let Some(call) = call {
            self.add(call, Place::Alone, start);
        }
        Ok(())
    }

    fn list(&mut self, cursor: &mut Cursor<'a>, place: Place) -> Result<(), JsonError> {
        self.listed = true;
        let allow = self.kind.allow(place);
        cursor.array(|cursor, _| {
            if self.spoiled || cursor.peek()? != JsonKind::Object {
                self.spoiled = true;
                return cursor.value().map(drop);
            }
            let call = object::read(cursor, allow)?;
            self.spoiled = !call.is_some_and(|call| {
                let start = call.span.start;
                self.add(call, place, start)
            });
            Ok(())
        })
    }

    /// Adds a call that begins at `start`; false when its format was not chosen.
    fn add(&mut self, call: Call<'a>, place: Place, start: usize) -> bool {
        let format = self.kind.format(place, call.shape);
        self.items.extend(format.map(|format| {
            let span = start..call.span.end;
            Item { format, call, span, closed: false }
        }));
        format.is_some()
    }
}
