//! A frame, from its opening to its closing, read byte by byte, and the calls inside.

use crate::json::Cursor;

use super::call::ToolCall;
use super::formats::{Kind, Place, is_word};
use super::machine::{Event, Fault, Machine};
use super::object::{self, LIST_KEY};

/// The state of a frame after a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Going,
    /// The byte was its last.
    Closed,
    /// The byte does not belong to it: the scan resumes at `resume`.
    Broken {
        resume: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the word right after a fence's opening.
    Word,
    /// Before the JSON.
    Lead,
    Body,
    /// After the JSON; N bytes of the closing are read.
    Tail(usize),
}

/// The text that a machine's positions refer to: bytes from position `base` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub bytes: &'a [u8],
    pub base: usize,
}

impl<'a> Window<'a> {
    /// The text from `start` to `end`, which the machine has checked to be UTF-8.
    fn text(self, start: usize, end: usize) -> Option<&'a str> {
        std::str::from_utf8(&self.bytes[start - self.base..end - self.base]).ok()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Frame {
    kind: Kind,
    start: usize,
    phase: Phase,
    machine: Machine,
    /// The list of calls that is being read: where in the frame it is, and the depth of its elements.
    list: Option<(Place, usize)>,
    /// [`LIST_KEY`] was read: if the next value is an array, it is a list of calls.
    list_next: bool,
    /// There was a list of calls, so the object around it is no call.
    listed: bool,
    /// A list has an element that is no call.
    spoiled: bool,
    /// The index of the frame's first call among all calls, and how many calls the frame has.
    first: usize,
    count: usize,
}

impl Frame {
    /// A frame of `kind` that begins at `start`. The first byte to push is the one after the opening. `calls` is how
    /// many calls were found before.
    pub fn new(kind: Kind, start: usize, calls: usize) -> Self {
        Self {
            kind,
            start,
            phase: if kind.fence() { Phase::Word } else { Phase::Lead },
            machine: Machine::new(),
            list: None,
            list_next: false,
            listed: false,
            spoiled: false,
            first: calls,
            count: 0,
        }
    }

    pub fn start(&self) -> usize {
        self.start
    }

    /// Takes the byte at `at`; `window` has the frame up to it. A call that this byte completes is added to `calls`.
    pub fn push(&mut self, at: usize, window: Window<'_>, calls: &mut Vec<ToolCall>) -> Progress {
        let byte = window.bytes[at - window.base];
        match self.phase {
            Phase::Word if is_word(byte) => Progress::Going,
            Phase::Word | Phase::Lead => match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {
                    self.phase = Phase::Lead;
                    Progress::Going
                }
                b'{' if self.kind.object() => self.body(byte, at, window, calls),
                b'[' if self.kind.array() => {
                    self.list = Some((Place::Array, 1));
                    self.listed = true;
                    self.body(byte, at, window, calls)
                }
                _ => self.broken(calls),
            },
            Phase::Body => self.body(byte, at, window, calls),
            Phase::Tail(read) => self.tail(read, byte, at, calls),
        }
    }

    /// How many of `bytes`, the next ones, can be skipped.
    pub fn plain(&self, bytes: &[u8]) -> usize {
        if self.phase == Phase::Body { self.machine.plain(bytes) } else { 0 }
    }

    /// Whether this is likely a call: more was read than an opening that texts without calls have too.
    pub fn begun(&self) -> bool {
        self.kind.tagged() || matches!(self.phase, Phase::Body | Phase::Tail(_))
    }

    /// Whether the frame has calls and no further one has begun.
    pub fn idle(&self) -> bool {
        let between = self.list.is_some_and(|(_, depth)| self.machine.depth() == depth);
        self.count > 0 && (between || matches!(self.phase, Phase::Tail(_)))
    }

    /// Whether a list with at least one call is open.
    pub fn more_expected(&self) -> bool {
        self.count > 0 && self.list.is_some() && !self.spoiled
    }

    /// Whether the frame, once it has ended, is broken: an opening that means a call and has none, or calls in a
    /// frame that is not whole.
    pub fn failed(&self, closed: bool) -> bool {
        if self.count == 0 { self.kind.tagged() } else { self.spoiled || !closed }
    }

    pub fn has_calls(&self) -> bool {
        self.count > 0
    }

    /// Whether the JSON has ended without a call.
    pub fn barren(&self) -> bool {
        self.count == 0 && matches!(self.phase, Phase::Tail(_))
    }

    /// Whether a list has an element that is no call.
    pub fn spoiled(&self) -> bool {
        self.spoiled
    }

    /// The places of the open brackets, ascending.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        self.machine.open()
    }

    fn body(&mut self, byte: u8, at: usize, window: Window<'_>, calls: &mut Vec<ToolCall>) -> Progress {
        self.phase = Phase::Body;
        let event = match self.machine.push(byte, at) {
            Ok(event) => event,
            Err(Fault::Syntax) => return self.broken(calls),
            // Resume after this bracket. Do not retry the open ones: they nest almost as deep.
            Err(Fault::Depth) => return Progress::Broken { resume: at + 1 },
        };
        match event {
            Event::Nothing => {}
            Event::Key(start) => {
                let candidate = self.machine.depth() == 1 && self.kind.wide() && self.list.is_none();
                self.list_next = candidate && is_list_key(window, start, at + 1);
            }
            Event::Scalar => {
                self.list_next = false;
                self.element(self.machine.depth(), false);
            }
            Event::Opened => {
                let depth = self.machine.depth();
                self.element(depth - 1, byte == b'{');
                if std::mem::take(&mut self.list_next) && byte == b'[' {
                    self.list = Some((Place::ToolCalls, depth));
                    self.listed = true;
                }
            }
            Event::Closed(start) => self.closed(start, at, window, calls),
        }
        if self.machine.depth() > 0 {
            return Progress::Going;
        }
        self.phase = Phase::Tail(0);
        if self.kind.closing().is_empty() { self.finish(at, calls) } else { Progress::Going }
    }

    /// Takes note that a value begins at `depth`.
    fn element(&mut self, depth: usize, object: bool) {
        self.spoiled |= !object && self.list.is_some_and(|(_, list)| list == depth);
    }

    fn closed(&mut self, start: usize, at: usize, window: Window<'_>, calls: &mut Vec<ToolCall>) {
        let depth = self.machine.depth();
        let place = match self.list {
            Some((_, list)) if depth < list => {
                self.list = None;
                return;
            }
            Some((place, list)) if depth == list && !self.spoiled => place,
            None if depth == 0 && !self.listed => Place::Alone,
            _ => return,
        };
        let call = self.call(place, start, at, window);
        self.spoiled |= call.is_none() && place != Place::Alone;
        if let Some(call) = call {
            calls.push(call);
            self.count += 1;
        }
    }

    /// The object from `start` to `at` as a call, if it is one.
    fn call(&self, place: Place, start: usize, at: usize, window: Window<'_>) -> Option<ToolCall> {
        let mut cursor = Cursor::new(window.text(start, at + 1)?, 0);
        let call = object::read(&mut cursor, self.kind.allow(place)).ok().flatten()?;
        let format = self.kind.format(place, call.shape)?;
        let call = ToolCall::new(format, call, start);
        Some(if place == Place::Alone { ToolCall { span: self.start..at + 1, ..call } } else { call })
    }

    fn tail(&mut self, read: usize, byte: u8, at: usize, calls: &mut [ToolCall]) -> Progress {
        let closing = self.kind.closing().as_bytes();
        if read == 0 && matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return Progress::Going;
        }
        if byte != closing[read] {
            return self.broken(calls);
        }
        self.phase = Phase::Tail(read + 1);
        if read + 1 == closing.len() { self.finish(at, calls) } else { Progress::Going }
    }

    fn finish(&self, at: usize, calls: &mut [ToolCall]) -> Progress {
        for call in &mut calls[self.first..] {
            call.closed = !self.spoiled;
            if !self.listed {
                call.span.end = at + 1;
            }
        }
        Progress::Closed
    }

    fn broken(&self, calls: &[ToolCall]) -> Progress {
        let last = calls[self.first..].last();
        Progress::Broken { resume: last.map_or(self.start + 1, |call| call.body.end) }
    }
}

/// Whether the string from `start` to `end`, quotes included, is [`LIST_KEY`].
fn is_list_key(window: Window<'_>, start: usize, end: usize) -> bool {
    let key =
        window.text(start, end).map(|text| Cursor::new(text, 0).string().map(|key| key.text() == LIST_KEY));
    matches!(key, Some(Ok(true)))
}
