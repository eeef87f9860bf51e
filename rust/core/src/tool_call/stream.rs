//! Calls in a text that is still being written.

use std::sync::Arc;

use crate::schema::ToolSchema;

use super::attempt::Attempt;
use super::call::ToolCall;
use super::failed::{frame_attempt, undecided};
use super::formats::{CALL_OPENINGS, Formats, Opening, Prose};
use super::frame::Frame;
use super::plain;
use super::progress::{Progress, Window};
use super::reading::Reading;
use super::starts::Starts;
use super::state::{Mark, Options, State};
use super::thinking::{End, Skip, Thinking};

/// Input is taken in pieces of at most this many bytes, which bounds the memory.
const PIECE: usize = 64 * 1024;

/// With at least this many bytes to read, look for whole frames before reading byte by byte.
const LONG: usize = 64;

/// How many calls are kept. No model should write a text with more.
const MAX_CALLS: usize = 1024;

/// When the calls that are kept have more than this times `max_call_bytes` bytes, no further frame is read.
const KEPT_FRAMES: usize = 4;

/// Finds calls while the text comes in pieces of any size. See [`super`] for what counts as a call.
///
/// After each byte it has the calls that [`super::scan`] finds in the text so far. A byte takes O(1) time, amortised.
/// The limits bound the memory.
#[derive(Debug)]
pub struct ToolCallStream {
    prose: Prose,
    schema: Option<Arc<ToolSchema>>,
    tools: Option<Arc<ToolSchema>>,
    formats: Formats,
    max_call_bytes: usize,
    /// The input from byte `base` on, which may have to be read again.
    buffer: Vec<u8>,
    base: usize,
    /// The next byte to look at.
    at: usize,
    frame: Option<Frame>,
    /// The stretch in which nothing counts, and the number of its first token.
    skip: Option<(Skip, Option<usize>)>,
    calls: Vec<ToolCall>,
    attempts: Vec<Attempt>,
    /// How many tokens belong to thinking blocks that have ended.
    thought: usize,
    /// The total number of bytes of `calls`.
    kept: usize,
    /// The first valid call: its index, its last byte, and the closing quote of its name.
    complete: Option<(usize, Mark, Mark)>,
    impossible: bool,
    /// How many tokens have been fed.
    tokens: usize,
    starts: Starts,
}

impl ToolCallStream {
    pub fn new(options: Options) -> Self {
        Self {
            prose: Prose::default(),
            tools: options.tools.or_else(|| options.schema.clone()),
            schema: options.schema,
            formats: options.formats,
            max_call_bytes: options.max_call_bytes,
            buffer: Vec::with_capacity(256),
            base: 0,
            at: 0,
            frame: None,
            skip: (options.thinking == Thinking::Open).then_some((Skip::Thinking(None), Some(0))),
            calls: Vec::new(),
            attempts: Vec::new(),
            thought: 0,
            kept: 0,
            complete: None,
            impossible: false,
            tokens: 0,
            starts: Starts::default(),
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
        self.complete.map(|(_, complete, _)| complete)
    }

    /// The closing quote of the first valid call's name; known when the call is complete.
    pub fn name_at(&self) -> Option<Mark> {
        self.complete.map(|(.., name)| name)
    }

    /// What opens like a call in the text so far and gives none that counts, in order. The first ones are kept.
    pub fn attempts(&self) -> Vec<Attempt> {
        let mut attempts = self.attempts.clone();
        attempts.extend(self.attempt_at_the_end());
        attempts
    }

    /// How many tokens have a byte of a thinking block, marks included.
    pub fn thinking_tokens(&self) -> usize {
        let open = match self.skip {
            Some((Skip::Thinking(_), Some(first))) => self.tokens - first,
            _ => 0,
        };
        self.thought + open
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
        self.starts.push(self.end(), token);
        self.buffer.extend_from_slice(bytes);
    }

    /// Reads all bytes in the buffer.
    fn read(&mut self) {
        if self.impossible {
            return;
        }
        if self.frame.is_none() && self.skip.is_none() && self.end() - self.at >= LONG {
            self.pass_plain();
        }
        while !self.impossible {
            let more = if self.frame.is_some() {
                self.inside()
            } else if let Some((skip, first)) = self.skip {
                self.pass(skip, first)
            } else {
                self.look()
            };
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
        while let Some(start) = Prose::next(&text.as_bytes()[at..]).map(|next| at + next) {
            at = start;
            let kind = match self.prose.opening(&text.as_bytes()[start..], base + start) {
                Opening::Nothing => {
                    at += 1;
                    continue;
                }
                Opening::Undecided { .. } | Opening::Thinking(_) => break,
                Opening::Frame(kind) => kind,
            };
            let Some(plain) = plain::frame(text, start, kind, self.formats, &mut entries) else { break };
            if plain.end() - start > self.max_call_bytes || self.calls.len() == MAX_CALLS || self.full() {
                break;
            }
            at = plain.end();
            let valid = self
                .schema
                .as_ref()
                .is_none_or(|schema| schema.is_valid_flat(plain.name(), plain.arguments()));
            let call = plain.into_call(base);
            self.kept += call.body.len();
            self.calls.push(call);
            self.judge_last(valid);
        }
        self.at = base + at;
        self.buffer = buffer;
    }

    /// Inside of a stretch where nothing counts. False at the end of the buffer.
    fn pass(&mut self, skip: Skip, first: Option<usize>) -> bool {
        match skip.end(&self.buffer, self.at - self.base, &CALL_OPENINGS) {
            End::After(at) => {
                self.at = self.base + at;
                false
            }
            End::At(at) => {
                self.at = self.base + at;
                self.skip = None;
                if let (Skip::Thinking(_), Some(first)) = (skip, first) {
                    let last = self.starts.token_of(self.at - 1);
                    self.thought += last.map_or(0, |last| last + 1 - first);
                }
                true
            }
        }
    }

    /// Outside of frames: looks for the next one. False at the end of the buffer.
    fn look(&mut self) -> bool {
        let Some(start) = Prose::next(self.rest(self.at)).map(|next| self.at + next) else {
            self.at = self.end();
            return false;
        };
        self.at = start;
        match self.prose.opening(self.rest(start), start) {
            Opening::Nothing => self.at += 1,
            Opening::Undecided { .. } => return false,
            Opening::Thinking(block) => {
                self.skip = Some((Skip::Thinking(Some(block)), self.starts.token_of(start)));
            }
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
        let end = self.end();
        let Some(frame) = &mut self.frame else { return true };
        let window = window(&self.buffer, self.base, self.formats, self.tools.as_deref());
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
        // A byte completes at most one call.
        if let Some(call) = self.calls.get(known) {
            let valid =
                self.schema.as_ref().is_none_or(|schema| schema.is_valid(&call.name, &call.arguments));
            self.kept += call.body.len();
            self.judge_last(valid);
        }
        if progress != Progress::Going
            && let Some(frame) = self.frame.take()
        {
            self.end_frame(&frame, progress);
        }
        true
    }

    /// Goes on after a frame.
    fn end_frame(&mut self, frame: &Frame, progress: Progress) {
        let attempt = frame_attempt(frame, progress, self.window());
        if self.attempts.len() < MAX_CALLS {
            self.attempts.extend(attempt);
        }
        match progress {
            Progress::Going | Progress::Closed => {}
            Progress::Spoken => self.at = frame.start() + frame.kind().opening().len(),
            Progress::Unclosed { resume } => self.at = resume,
            Progress::Broken { resume } => {
                self.prose.doom(frame.open(), resume);
                self.at = resume;
            }
            Progress::Void { rest } => {
                self.skip = Some((Skip::Rest(frame.kind().closing()), None));
                self.at = rest;
                // A call that was complete is none after all.
                if self.complete.is_some_and(|(index, ..)| index >= self.calls.len()) {
                    self.complete = None;
                }
            }
        }
    }

    fn window(&self) -> Window<'_> {
        window(&self.buffer, self.base, self.formats, self.tools.as_deref())
    }

    /// The attempt that the text has if it ends here.
    fn attempt_at_the_end(&self) -> Option<Attempt> {
        if self.impossible || self.skip.is_some() {
            return None;
        }
        if let Some(frame) = &self.frame {
            return frame_attempt(frame, Progress::Going, self.window());
        }
        let rest = self.rest(self.at);
        match (!rest.is_empty()).then(|| self.prose.opening(rest, self.at))? {
            Opening::Undecided { bare, call } => undecided(self.at, bare, call, self.window().reading),
            _ => None,
        }
    }

    /// Takes note of the last call if it is the first valid one.
    fn judge_last(&mut self, valid: bool) {
        if valid
            && self.complete.is_none()
            && let Some(call) = self.calls.last()
        {
            let mark = |byte| Mark { byte, token: self.starts.token_of(byte) };
            let marks = (mark(call.body.end - 1), mark(call.name_span.end));
            self.complete = Some((self.calls.len() - 1, marks.0, marks.1));
        }
    }

    /// Whether no more bytes of calls may be kept.
    fn full(&self) -> bool {
        self.kept > KEPT_FRAMES.saturating_mul(self.max_call_bytes)
    }

    fn give_up(&mut self) {
        self.impossible = true;
        self.buffer = Vec::new();
        self.starts = Starts::default();
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
        self.starts.forget(self.base, self.buffer.is_empty());
    }
}

fn window<'a>(bytes: &'a [u8], base: usize, formats: Formats, tools: Option<&'a ToolSchema>) -> Window<'a> {
    Window { bytes, base, reading: Reading { tools, ..Reading::new(formats) } }
}
