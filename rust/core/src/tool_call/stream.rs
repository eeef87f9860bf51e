//! Calls in a text that is still being written.

use std::sync::Arc;

use crate::schema::ToolSchema;

use super::ToolCall;
use super::formats::{Formats, Opening, Prose};
use super::frame::{Frame, Progress, Window};

/// Bytes taken in at once: what bounds the memory when the input comes in one piece.
const PIECE: usize = 64 * 1024;

/// Calls that are kept; a text with more is none that a model should write.
const MAX_CALLS: usize = 1024;

#[derive(Debug, Clone)]
pub struct Options {
    /// What a call must satisfy to count; without it every call does.
    pub schema: Option<Arc<ToolSchema>>,
    pub formats: Formats,
    /// The longest frame, in bytes: with one more the stream gives up ([`State::Impossible`]).
    pub max_call_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { schema: None, formats: Formats::ALL, max_call_bytes: 1 << 20 }
    }
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
    /// The token that the byte belongs to, 0-based over all tokens; `None` where it came without one.
    pub token: Option<usize>,
}

/// Finds calls while the text comes in, in pieces of any size. See [`super`] for what counts as one.
///
/// After each byte its calls are those of [`super::scan`] of the text so far. The time is O(1) a byte, amortised; the
/// memory is bounded by the limits.
#[derive(Debug)]
pub struct ToolCallStream {
    prose: Prose,
    schema: Option<Arc<ToolSchema>>,
    max_call_bytes: usize,
    /// The input from byte `base` on: what may have to be read again.
    buffer: Vec<u8>,
    base: usize,
    /// The next byte to look at.
    at: usize,
    frame: Option<Frame>,
    calls: Vec<ToolCall>,
    /// So many of the calls have been held against the schema.
    judged: usize,
    /// The first valid call's last byte, and its name's closing quote.
    complete: Option<(Mark, Mark)>,
    impossible: bool,
    /// The token that is being fed, and how many there were before it.
    token: Option<usize>,
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
            buffer: Vec::new(),
            base: 0,
            at: 0,
            frame: None,
            calls: Vec::new(),
            judged: 0,
            complete: None,
            impossible: false,
            token: None,
            tokens: 0,
            starts: Vec::new(),
        }
    }

    /// Takes the next bytes of the text.
    pub fn feed(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.impossible {
            return;
        }
        let start = self.base + self.buffer.len();
        match self.starts.last() {
            Some(&(_, None)) if self.token.is_none() => {}
            _ => self.starts.push((start, self.token)),
        }
        for piece in bytes.chunks(PIECE) {
            self.buffer.extend_from_slice(piece);
            self.run();
            self.forget();
        }
    }

    /// Takes the bytes of the next token. A token without bytes counts too.
    pub fn feed_token(&mut self, bytes: &[u8]) {
        self.token = Some(self.tokens);
        self.tokens += 1;
        self.feed(bytes);
        self.token = None;
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

    /// The byte with which the first valid call was complete.
    pub fn complete_at(&self) -> Option<Mark> {
        self.complete.map(|(complete, _)| complete)
    }

    /// The closing quote of the first valid call's name; known when the call is complete.
    pub fn name_at(&self) -> Option<Mark> {
        self.complete.map(|(_, name)| name)
    }

    /// A list of calls is open in which one is complete: a further one may follow at once.
    pub fn more_expected(&self) -> bool {
        self.frame.as_ref().is_some_and(Frame::more_expected)
    }

    fn end(&self) -> usize {
        self.base + self.buffer.len()
    }

    fn rest(&self, at: usize) -> &[u8] {
        &self.buffer[at - self.base..]
    }

    /// Looks at all bytes that have come.
    fn run(&mut self) {
        while !self.impossible {
            let more = match self.frame.take() {
                Some(frame) => self.read(frame),
                None => self.look(),
            };
            if !more {
                return;
            }
        }
    }

    /// Outside of frames: looks for the next one. False when the bytes are used up.
    fn look(&mut self) -> bool {
        let Some(start) = self.prose.next(self.rest(self.at)).map(|next| self.at + next) else {
            self.at = self.end();
            return false;
        };
        self.at = start;
        match self.prose.opening(self.rest(start), start) {
            Opening::Nothing => self.at += 1,
            Opening::Undecided { .. } => return false,
            Opening::Frame(kind) => {
                self.at += kind.opening().len();
                self.frame = Some(Frame::new(kind, start, self.calls.len()));
            }
        }
        true
    }

    /// Inside `frame`. False when the bytes are used up.
    fn read(&mut self, mut frame: Frame) -> bool {
        loop {
            self.at += frame.plain(self.rest(self.at));
            if self.at - frame.start() > self.max_call_bytes || self.calls.len() > MAX_CALLS {
                self.give_up();
                return false;
            }
            if self.at == self.end() {
                self.frame = Some(frame);
                return false;
            }
            let window = Window { bytes: &self.buffer, base: self.base };
            let progress = frame.push(self.at, window, &mut self.calls);
            if self.judged < self.calls.len() {
                self.judge();
            }
            self.at += 1;
            match progress {
                Progress::Going => {}
                Progress::Closed => return true,
                Progress::Broken { resume } => {
                    self.prose.doom(frame.open(), resume);
                    self.at = resume;
                    return true;
                }
            }
        }
    }

    /// A call was completed by the byte that is looked at.
    fn judge(&mut self) {
        for call in &self.calls[self.judged..] {
            let valid = self.schema.as_ref().is_none_or(|schema| schema.is_valid(call));
            if valid && self.complete.is_none() {
                let complete = Mark { byte: self.at, token: self.token_of(self.at) };
                let name = call.name_span.end;
                self.complete = Some((complete, Mark { byte: name, token: self.token_of(name) }));
            }
        }
        self.judged = self.calls.len();
    }

    /// The token that a byte of the buffer belongs to.
    fn token_of(&self, byte: usize) -> Option<usize> {
        let after = self.starts.partition_point(|&(start, _)| start <= byte);
        self.starts[..after].last().and_then(|&(_, token)| token)
    }

    fn give_up(&mut self) {
        self.impossible = true;
        self.buffer = Vec::new();
        self.starts = Vec::new();
    }

    /// Drops what need not be read again.
    fn forget(&mut self) {
        let keep = self.frame.as_ref().map_or(self.at, Frame::start);
        let done = keep.saturating_sub(self.base).min(self.buffer.len());
        // Moving the rest to the front is paid for by what was dropped.
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
