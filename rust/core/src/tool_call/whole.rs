//! A frame that is well-formed, read as JSON.

use crate::json::{Cursor, JsonError, Kind as JsonKind};

use super::attempt::Reason;
use super::formats::{Kind, Place, is_word};
use super::object::{self, Call, Fields, LIST_KEY};
use super::reading::Reading;
use super::seen::Item;

/// A frame that was closed.
pub(super) struct Whole {
    pub end: usize,
    /// Its JSON is an array.
    pub array: bool,
    /// Why it gives no call that counts, or one too few.
    pub failure: Option<Reason>,
    /// It has calls, of whatever format.
    pub passed: bool,
}

/// Reads a frame; `None` if it is not whole (`items` may then have calls that do not count).
pub(super) fn whole_frame<'a>(
    text: &'a str,
    start: usize,
    kind: Kind,
    reading: Reading<'_>,
    items: &mut Vec<Item<'a>>,
) -> Option<Whole> {
    let mut body = start + kind.opening().len();
    if kind.fence() {
        body += text.as_bytes()[body..].iter().take_while(|&&byte| is_word(byte)).count();
    }
    let mut cursor = Cursor::new(text, body);
    let mut reader = Reader {
        kind,
        reading,
        items,
        found: false,
        spoiled: false,
        listed: false,
        like: false,
        uncounted: None,
    };
    let array = match cursor.peek().ok()? {
        JsonKind::Object if kind.object() => reader.alone(&mut cursor, start).map(|()| false),
        JsonKind::Array if kind.array() => reader.list(&mut cursor, Place::Array).map(|()| true),
        _ => return None,
    }
    .ok()?;
    let Reader { items, found, spoiled, listed, like, uncounted, .. } = reader;
    if !kind.closing().is_empty() {
        cursor.skip_space();
    }
    let end = cursor.position() + kind.closing().len();
    if !text[cursor.position()..].starts_with(kind.closing()) {
        return None;
    }
    for item in items {
        item.closed = !spoiled;
        if !listed {
            item.span.end = end;
        }
    }
    let failure = match (found, spoiled) {
        (true, false) => uncounted,
        (false, false) if like => Some(Reason::Arguments),
        _ => (found || kind.tagged() || like).then_some(Reason::Malformed),
    };
    Some(Whole { end, array, failure, passed: found && !spoiled })
}

/// Reads a frame's JSON.
#[expect(clippy::struct_excessive_bools, reason = "what is known of the frame so far")]
struct Reader<'i, 'a, 't> {
    kind: Kind,
    reading: Reading<'t>,
    items: &'i mut Vec<Item<'a>>,
    /// There is a call, of whatever format.
    found: bool,
    spoiled: bool,
    listed: bool,
    /// There is an object that is no call and looks like one.
    like: bool,
    /// Why a call does not count.
    uncounted: Option<Reason>,
}

impl<'a> Reader<'_, 'a, '_> {
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
        if self.listed {
            return Ok(());
        }
        let like = fields.call_like();
        match fields.call(body..cursor.position(), allow, self.reading.tools) {
            Some(call) => {
                self.add(call, Place::Alone, start);
            }
            None => self.like |= like,
        }
        Ok(())
    }

    fn list(&mut self, cursor: &mut Cursor<'a>, place: Place) -> Result<(), JsonError> {
        self.listed = true;
        let allow = self.kind.allow(place);
        cursor.array(|cursor, _| {
            if cursor.peek()? != JsonKind::Object {
                self.spoiled = true;
                return cursor.value().map(drop);
            }
            match object::read(cursor, allow, self.reading.tools)? {
                Ok(call) => {
                    let start = call.span.start;
                    self.spoiled |= !self.add(call, place, start);
                }
                Err(like) => {
                    self.like |= like;
                    self.spoiled = true;
                }
            }
            Ok(())
        })
    }

    /// Adds a call that begins at `start`, if it counts; false when no format has such calls.
    fn add(&mut self, call: Call<'a>, place: Place, start: usize) -> bool {
        let formats = self.reading.formats;
        let label = if self.spoiled { None } else { self.kind.label(place, call.form, formats) };
        let Some((format, counts)) = label else {
            self.like = true;
            return false;
        };
        self.found = true;
        if counts {
            let span = start..call.span.end;
            self.items.push(Item { format, call, span, closed: false });
        } else {
            self.uncounted = Some(if call.form.lenient { Reason::Arguments } else { Reason::Format });
        }
        true
    }
}
