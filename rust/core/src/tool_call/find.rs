//! Calls in a whole text. What is well-formed is read in one go; only what is not is read byte by byte.

use crate::json::{Cursor, JsonError, Kind as JsonKind};

use super::ToolCall;
use super::formats::{Formats, Kind, Opening, Place, Prose};
use super::frame::{self, Frame, LIST_KEY, Progress, Window};
use super::object::{self, Fields};

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Every complete call, in order; those whose frame is cut off or broken are not `closed`.
    pub calls: Vec<ToolCall>,
    /// Something opens like a call and is none, or the text ends inside a frame.
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
    let bytes = text.as_bytes();
    let mut prose = Prose::new(formats);
    let mut found = Scan::default();
    let mut at = 0;
    while let Some(start) = prose.next(&bytes[at..]).map(|next| at + next) {
        at = match prose.opening(&bytes[start..], start) {
            Opening::Nothing => start + 1,
            Opening::Undecided { bare } => {
                found.broken |= bare;
                break;
            }
            Opening::Frame(kind) => {
                let known = found.calls.len();
                if let Some(whole) = whole_frame(text, start, kind, &mut found.calls) {
                    let count = found.calls.len() - known;
                    found.broken |= if count == 0 { kind.tagged() } else { whole.spoiled };
                    whole.end
                } else {
                    found.calls.truncate(known);
                    match careful_frame(bytes, start, kind, &mut prose, &mut found) {
                        Some(next) => next,
                        None => break,
                    }
                }
            }
        };
    }
    found
}

/// True when `text` could be the beginning of a text that holds calls, complete and valid by `valid`, and nothing else.
///
/// `false` is final, `true` is a possibility. White space may stand around calls, prose may not.
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
            Progress::Going => return sound,
            Progress::Closed if sound && frame.has_calls() => at = end,
            _ => return false,
        }
    }
    true
}

/// Pushes `bytes` from `at` on into `frame` until it ends; where it stopped, and why.
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

/// Where the scan goes on behind a frame that may be broken; `None` where the text ends inside it.
fn careful_frame(
    bytes: &[u8],
    start: usize,
    kind: Kind,
    prose: &mut Prose,
    found: &mut Scan,
) -> Option<usize> {
    let mut frame = Frame::new(kind, start, found.calls.len());
    let (end, progress) = run(&mut frame, bytes, start + kind.opening().len(), &mut found.calls);
    found.broken |= match progress {
        Progress::Going => frame.begun(),
        progress => frame.failed(progress == Progress::Closed),
    };
    match progress {
        Progress::Going => None,
        Progress::Closed => Some(end),
        Progress::Broken { resume } => {
            prose.doom(frame.open(), resume);
            Some(resume)
        }
    }
}

/// A frame that was closed.
struct Whole {
    end: usize,
    spoiled: bool,
}

/// Reads a frame that is whole; `None` (and perhaps some `calls` too many) where it is not.
fn whole_frame(text: &str, start: usize, kind: Kind, calls: &mut Vec<ToolCall>) -> Option<Whole> {
    let mut body = start + kind.opening().len();
    if kind.fence() {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        body += text.as_bytes()[body..].iter().take_while(|byte| word(byte)).count();
    }
    let first = calls.len();
    let mut cursor = Cursor::new(text, body);
    let mut reader = Reader { kind, calls, spoiled: false, listed: false };
    match cursor.peek().ok()? {
        JsonKind::Object if kind.object() => reader.alone(&mut cursor, start),
        JsonKind::Array if kind.array() => reader.list(&mut cursor, Place::Array),
        _ => return None,
    }
    .ok()?;
    let Reader { spoiled, listed, .. } = reader;
    if !kind.closing().is_empty() {
        cursor.skip_space();
    }
    let end = cursor.position() + kind.closing().len();
    text[cursor.position()..].starts_with(kind.closing()).then(|| {
        frame::close(&mut calls[first..], listed, spoiled, end);
        Whole { end, spoiled }
    })
}

/// Reads a frame's JSON.
struct Reader<'c> {
    kind: Kind,
    calls: &'c mut Vec<ToolCall>,
    spoiled: bool,
    listed: bool,
}

impl Reader<'_> {
    /// An object: a call, or with the key for it a list of calls.
    fn alone(&mut self, cursor: &mut Cursor<'_>, start: usize) -> Result<(), JsonError> {
        let allow = self.kind.allow(Place::Alone);
        let mut fields = Fields::default();
        let body = cursor.position();
        cursor.object(|cursor, key| {
            if self.kind.wide() && key.text() == LIST_KEY && cursor.peek()? == JsonKind::Array {
                return self.list(cursor, Place::ToolCalls);
            }
            fields.entry(cursor, &key, allow)
        })?;
        let end = cursor.position();
        let call = if self.listed { None } else { fields.call(body..end) };
        if let Some(call) = call
            && let Some(format) = self.kind.format(Place::Alone, call.shape)
        {
            self.calls.push(ToolCall { span: start..end, ..ToolCall::new(format, call, 0) });
        }
        Ok(())
    }

    fn list(&mut self, cursor: &mut Cursor<'_>, place: Place) -> Result<(), JsonError> {
        self.listed = true;
        let allow = self.kind.allow(place);
        cursor.array(|cursor, _| {
            if self.spoiled || cursor.peek()? != JsonKind::Object {
                self.spoiled = true;
                return cursor.value().map(drop);
            }
            let call = object::read(cursor, allow)?;
            let call =
                call.and_then(|call| Some(ToolCall::new(self.kind.format(place, call.shape)?, call, 0)));
            self.spoiled |= call.is_none();
            self.calls.extend(call);
            Ok(())
        })
    }
}
