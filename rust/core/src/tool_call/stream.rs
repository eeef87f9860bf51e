//! Calls in a text that is still being written.

use std::sync::Arc;

use crate::schema::ToolSchema;

use super::call::ToolCall;
use super::formats::{Formats, Opening, Prose};
use super::frame::{Frame, Progress, Window};
use super::plain;

/// Input is taken in pieces of at most this many bytes, which bounds the memory.
const PIECE: usize = 64 * 1024;

/// With at least this many bytes to read, look for whole frames before reading byte by byte.
const LONG: usize = 64;

/// How many calls are kept. No model should write a text with more.
const MAX_CALLS: usize = 1024;

/// When the calls that are kept have more than this times `max_call_bytes` bytes, no further frame is read.
const KEPT_FRAMES: usize = 4;

#[derive(Debug, Clone)]
pub struct Options {
    /// A call counts if it is valid under this schema; without a schema every call counts.
    pub schema: Option<Arc<ToolSchema>>,
    pub formats: Formats,
    /// The longest frame, in bytes. After a longer one the stream gives up ([`State::Impossible`]).
    pub max_call_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Outside of frames, and no valid call is complete.
    Prose,
    /// A call may be under way.
    Inside,
    /// A valid call is complete, and no further one has begun.
    Complete,
    /// A limit was reached: nothing more is read.
    Impossible,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prose => "prose",
            Self::Inside => "inside",
            Self::Complete => "complete",
            Self::Impossible => "impossible",
        }
    }
}

/// A place in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// 0-based, over all input.
    pub byte: usize,
    /// The token that the byte belongs to, 0-based over all tokens; `None` if it was not fed as part of a token.
    pub token: Option<usize>,
}

/// Finds calls while the text comes in pieces of any size. See [`super`] for what counts as a call.
///
/// After each byte it has the calls that [`super::scan`] finds in the text so far. A byte takes O(1) time, amortised.
/// The limits bound the memory.
#[derive(Debug)]
pub struct ToolCallStream {
    prose: Prose,
    schema: Option<Arc<ToolSchema>>,
    max_call_bytes: usize,
    /// The input from byte `base` on, which may have to be read again.
    buffer: Vec<u8>,
    base: usize,
    /// The next byte to look at.
    at: usize,
    frame: Option<Frame>,
    calls: Vec<ToolCall>,
    /// The total number of bytes of `calls`.
    kept: usize,
    /// The last byte of the first valid call, and the closing quote of its name.
    complete: Option<(Mark, Mark)>,
    impossible: bool,
    /// How many tokens have been fed.
    tokens: usize,
    /// The first byte of each token that has bytes in the buffer, and the token's number where it has one.
    starts: Vec<(usize, Option<usize>)>,
}

impl ToolCallStream {
    pub fn new(options: Options) -> Self {
        Self {
            prose: Prose::new(options.formats),
            schema: options.schema,
            max_call_bytes: options.max_call_bytes,
            buffer: Vec::with_capacity(256),
            base: 0,
            at: 0,
            frame: None,
            calls: Vec::new(),
            kept: 0,
            complete: None,
            impossible: false,
            tokens: 0,
            starts: Vec::with_capacity(64),
        }
    }

    /// Takes the next bytes of the text.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.take(piece, None);
            self.read();
        }
    }

    /// Takes the bytes of the next token. A token without bytes counts too.
    pub fn feed_token(&mut self, bytes: &[u8]) {
        self.feed_tokens([bytes]);
    }

    /// Takes the bytes of the next tokens.
    pub fn feed_tokens<'a>(&mut self, tokens: impl IntoIterator<Item = &'a [u8]>) {
        for bytes in tokens {
            for piece in bytes.chunks(PIECE) {
                self.take(piece, Some(self.tokens));
                if self.buffer.len() >= PIECE {
                    self.read();
                }
            }
            self.tokens += 1;
        }
        self.read();
    }

    pub fn state(&self) -> State {
        let complete = self.complete.is_some();
        match &self.frame {
            _ if self.impossible => State::Impossible,
            Some(frame) if frame.begun() && !(complete && frame.idle()) => State::Inside,
            _ if complete => State::Complete,
            _ => State::Prose,
        }
    }

    /// The complete calls so far, valid or not, in order. A call's closing joins its span when it comes.
    pub fn calls(&self) -> &[ToolCall] {
        &self.calls
    }

    /// The byte that completed the first valid call.
    pub fn complete_at(&self) -> Option<Mark> {
        self.complete.map(|(complete, _)| complete)
    }

    /// The closing quote of the first valid call's name; known when the call is complete.
    pub fn name_at(&self) -> Option<Mark> {
        self.complete.map(|(_, name)| name)
    }

    /// Whether a list is open in which a call is complete: another one may follow at once.
    pub fn more_expected(&self) -> bool {
        self.frame.as_ref().is_some_and(Frame::more_expected)
    }

    fn end(&self) -> usize {
        self.base + self.buffer.len()
    }

    fn rest(&self, at: usize) -> &[u8] {
        &self.buffer[at - self.base..]
    }

    /// Adds the next bytes to the buffer; they are of `token`, or of none.
    fn take(&mut self, bytes: &[u8], token: Option<usize>) {
        if self.impossible {
            return;
        }
        let start = self.end();
        match self.starts.last() {
            Some(&(_, last)) if last == token => {}
            _ => self.starts.push((start, token)),
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Reads all bytes in the buffer.
    fn read(&mut self) {
        if self.impossible {
            return;
        }
        if self.frame.is_none() && self.end() - self.at >= LONG {
            self.pass_plain();
        }
        while !self.impossible {
            let more = if self.frame.is_some() { self.inside() } else { self.look() };
            if !more {
                break;
            }
        }
        self.forget();
    }

    /// Reads whole frames with one plain call each, the fast way. Stops at anything else, which is read byte by byte.
    fn pass_plain(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let text = buffer[self.at - self.base..].utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let (base, mut at) = (self.at, 0);
        let mut entries = Vec::with_capacity(32);
        while let Some(start) = self.prose.next(&text.as_bytes()[at..]).map(|next| at + next) {
            at = start;
            let kind = match self.prose.opening(&text.as_bytes()[start..], base + start) {
                Opening::Nothing => {
                    at += 1;
                    continue;
                }
                Opening::Undecided { .. } => break,
                Opening::Frame(kind) => kind,
            };
            let Some(plain) = plain::frame(text, start, kind, &mut entries) else { break };
            if plain.end() - start > self.max_call_bytes || self.calls.len() == MAX_CALLS || self.full() {
                break;
            }
            at = plain.end();
            let valid = self
                .schema
                .as_ref()
                .is_none_or(|schema| schema.is_valid_flat(plain.name(), plain.arguments()));
            let call = plain.into_call(base);
            self.judged(call.body.end - 1, call.name_span.end, valid);
            self.kept += call.body.len();
            self.calls.push(call);
        }
        self.at = base + at;
        self.buffer = buffer;
    }

    /// Outside of frames: looks for the next one. False at the end of the buffer.
    fn look(&mut self) -> bool {
        let Some(start) = self.prose.next(self.rest(self.at)).map(|next| self.at + next) else {
            self.at = self.end();
            return false;
        };
        self.at = start;
        match self.prose.opening(self.rest(start), start) {
            Opening::Nothing => self.at += 1,
            Opening::Undecided { .. } => return false,
            Opening::Frame(_) if self.full() => {
                self.give_up();
                return false;
            }
            Opening::Frame(kind) => {
                self.at += kind.opening().len();
                self.frame = Some(Frame::new(kind, start, self.calls.len()));
            }
        }
        true
    }

    /// Reads on inside a frame. False at the end of the buffer.
    fn inside(&mut self) -> bool {
        let Some(frame) = &mut self.frame else { return true };
        let window = Window { bytes: &self.buffer, base: self.base };
        let end = self.base + self.buffer.len();
        let known = self.calls.len();
        let progress = loop {
            self.at += frame.plain(&self.buffer[self.at - self.base..]);
            if self.at - frame.start() > self.max_call_bytes || self.calls.len() > MAX_CALLS {
                self.give_up();
                return false;
            }
            if self.at == end {
                return false;
            }
            let progress = frame.push(self.at, window, &mut self.calls);
            self.at += 1;
            if progress != Progress::Going || self.calls.len() > known {
                break progress;
            }
        };
        let broken = match progress {
            Progress::Broken { resume } => Some((resume, frame.open().collect::<Vec<_>>())),
            _ => None,
        };
        if progress != Progress::Going {
            self.frame = None;
        }
        // A byte completes at most one call.
        if self.calls.len() > known {
            let call = &self.calls[known];
            let valid =
                self.schema.as_ref().is_none_or(|schema| schema.is_valid(&call.name, &call.arguments));
            let (last, name_end) = (call.body.end - 1, call.name_span.end);
            self.kept += call.body.len();
            self.judged(last, name_end, valid);
        }
        if let Some((resume, open)) = broken {
            self.prose.doom(open.into_iter(), resume);
            self.at = resume;
        }
        true
    }

    /// Takes note of a call if it is the first valid one. `last` is its last byte, `name_end` the closing quote of
    /// its name.
    fn judged(&mut self, last: usize, name_end: usize, valid: bool) {
        if valid && self.complete.is_none() {
            let mark = |byte| Mark { byte, token: self.token_of(byte) };
            self.complete = Some((mark(last), mark(name_end)));
        }
    }

    /// The token that a byte of the buffer belongs to.
    fn token_of(&self, byte: usize) -> Option<usize> {
        let after = self.starts.partition_point(|&(start, _)| start <= byte);
        self.starts[..after].last().and_then(|&(_, token)| token)
    }

    /// Whether no more bytes of calls may be kept.
    fn full(&self) -> bool {
        self.kept > KEPT_FRAMES.saturating_mul(self.max_call_bytes)
    }

    fn give_up(&mut self) {
        self.impossible = true;
        self.buffer = Vec::new();
        self.starts = Vec::new();
    }

    /// Drops the bytes that need not be read again.
    fn forget(&mut self) {
        let keep = self.frame.as_ref().map_or(self.at, Frame::start);
        let done = keep.saturating_sub(self.base).min(self.buffer.len());
        // Only move the rest to the front if at least as many bytes are dropped: so a byte is moved O(1) times.
        if done < self.buffer.len() && done <= self.buffer.len() / 2 {
            return;
        }
        self.buffer.drain(..done);
        self.base += done;
        let first = self.starts.partition_point(|&(start, _)| start <= self.base).saturating_sub(1);
        self.starts.drain(..first);
        if self.buffer.is_empty() {
            self.starts.clear();
        }
    }
}
