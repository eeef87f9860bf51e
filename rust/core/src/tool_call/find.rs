//! Calls in a whole text. A frame is read the fast way if it has one plain call ([`super::plain`]), else as whole JSON
//! ([`super::whole`]), and byte by byte only if it is not well-formed ([`super::frame`]).

use std::ops::Range;

use crate::json::flat::Entry;

use super::attempt::{Attempt, Reason};
use super::call::ToolCall;
use super::failed::{frame_attempt, undecided};
use super::formats::{CALL_OPENINGS, Kind, Opening, Prose};
use super::frame::Frame;
use super::plain;
use super::progress::{Progress, Window};
use super::reading::Reading;
use super::seen::{Seen, Visit};
use super::thinking::{End, Skip, Thinking};
use super::whole::whole_frame;

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Every complete call that counts, in order; those whose frame is cut off or broken are not `closed`.
    pub calls: Vec<ToolCall>,
    /// What opens like a call and gives none that counts, in order.
    pub attempts: Vec<Attempt>,
    /// The stretches that are whole calls or thinking blocks, ascending.
    pub passed: Vec<Range<usize>>,
    /// The stretches that are other whole frames: well-formed JSON without a call.
    pub json: Vec<Range<usize>>,
}

impl Scan {
    /// At least one call, and nothing of a chosen format broken.
    pub fn is_sound(&self) -> bool {
        !self.calls.is_empty() && !self.attempts.iter().any(|attempt| attempt.chosen)
    }
}

/// Every closed call in `text`, in order. See [`super`] for what counts as one.
pub fn find_tool_calls(text: &str, reading: Reading<'_>) -> Vec<ToolCall> {
    let mut calls = complete_calls(text, reading);
    calls.retain(|call| call.closed);
    calls
}

/// Every complete call in `text`, closed or not, in order.
pub fn complete_calls(text: &str, reading: Reading<'_>) -> Vec<ToolCall> {
    let mut calls = Calls(Vec::new());
    walk(text, reading, &mut calls);
    calls.0
}

/// The calls alone.
struct Calls(Vec<ToolCall>);

impl Visit for Calls {
    fn call(&mut self, seen: Seen<'_>) {
        self.0.push(seen.into_call());
    }

    fn attempt(&mut self, _: Attempt) {}
}

/// Every complete call in `text`, closed or not, and every attempt at one. Takes time linear in the text.
pub fn scan(text: &str, reading: Reading<'_>) -> Scan {
    let mut found = Scan::default();
    walk(text, reading, &mut found);
    found
}

impl Visit for Scan {
    fn call(&mut self, seen: Seen<'_>) {
        self.calls.push(seen.into_call());
    }

    fn attempt(&mut self, attempt: Attempt) {
        self.attempts.push(attempt);
    }

    fn passed(&mut self, range: Range<usize>) {
        self.passed.push(range);
    }

    fn json(&mut self, range: Range<usize>) {
        self.json.push(range);
    }
}

/// Shows `visit` every complete call in `text`, closed or not, and every attempt at one.
pub(crate) fn walk(text: &str, reading: Reading<'_>, visit: &mut impl Visit) {
    let bytes = text.as_bytes();
    let mut prose = Prose::default();
    let mut entries = Vec::<Entry>::with_capacity(32);
    let mut at = 0;
    if reading.thinking == Thinking::Open {
        let Some(next) = thought(bytes, 0, Skip::Thinking(None), visit) else { return };
        at = next;
    }
    while let Some(start) = Prose::next(&bytes[at..]).map(|next| at + next) {
        let next = match prose.opening(&bytes[start..], start) {
            Opening::Nothing => Some(start + 1),
            Opening::Undecided { bare, call } => return visit_undecided(start, bare, call, reading, visit),
            Opening::Thinking(block) => thought(bytes, start, Skip::Thinking(Some(block)), visit),
            Opening::Frame(kind) => {
                if let Some(plain) = plain::frame(text, start, kind, reading.formats, &mut entries) {
                    let next = plain.end();
                    visit.call(Seen::Plain(plain));
                    visit.passed(start..next);
                    Some(next)
                } else {
                    other_frame(text, start, kind, &mut prose, reading, visit)
                }
            }
        };
        let Some(next) = next else { return };
        at = next;
    }
}

/// Passes over a thinking block from `start` on; `None` if it does not end.
fn thought(bytes: &[u8], start: usize, skip: Skip, visit: &mut impl Visit) -> Option<usize> {
    match skip.end(bytes, start, &[]) {
        End::At(end) => {
            visit.passed(start..end);
            Some(end)
        }
        End::After(_) => {
            visit.passed(start..bytes.len());
            None
        }
    }
}

/// The text ends at `start` inside what may become an opening.
fn visit_undecided(at: usize, bare: bool, call: Option<Kind>, reading: Reading<'_>, visit: &mut impl Visit) {
    if let Some(attempt) = undecided(at, bare, call, reading) {
        visit.attempt(attempt);
    }
}

/// Reads a frame that is not plain; where the scan resumes, `None` if the text ends inside the frame.
fn other_frame(
    text: &str,
    start: usize,
    kind: Kind,
    prose: &mut Prose,
    reading: Reading<'_>,
    visit: &mut impl Visit,
) -> Option<usize> {
    let mut items = Vec::new();
    let Some(whole) = whole_frame(text, start, kind, reading, &mut items) else {
        return careful_frame(text.as_bytes(), start, kind, prose, reading, visit);
    };
    for item in items {
        visit.call(Seen::Whole(item));
    }
    if let Some(reason) = whole.failure {
        let chosen = kind.is_chosen(whole.array, reading.formats) && reason != Reason::Format;
        visit.attempt(Attempt { at: start, reason, chosen, open: false });
    }
    if whole.passed {
        visit.passed(start..whole.end);
    } else {
        visit.json(start..whole.end);
    }
    Some(whole.end)
}

/// True when `text` could be the beginning of a text whose calls are all closed and pass `valid`.
///
/// `false` is final: no continuation can help. Prose around calls does not matter.
pub fn could_become(text: &str, reading: Reading<'_>, valid: impl Fn(&ToolCall) -> bool) -> bool {
    let found = scan(text, reading);
    found.calls.iter().all(valid) && found.attempts.iter().all(|attempt| attempt.open || !attempt.chosen)
}

/// Reads a frame that may be broken.
fn careful_frame(
    bytes: &[u8],
    start: usize,
    kind: Kind,
    prose: &mut Prose,
    reading: Reading<'_>,
    visit: &mut impl Visit,
) -> Option<usize> {
    let mut frame = Frame::new(kind, start, 0);
    let mut calls = Vec::new();
    let window = Window { bytes, base: 0, reading };
    let mut at = start + kind.opening().len();
    let progress = loop {
        at += frame.plain(&bytes[at..]);
        if at == bytes.len() {
            break Progress::Going;
        }
        let progress = frame.push(at, window, &mut calls);
        at += 1;
        if progress != Progress::Going {
            break progress;
        }
    };
    for call in calls {
        visit.call(Seen::Other(call));
    }
    if let Some(attempt) = frame_attempt(&frame, progress, window) {
        visit.attempt(attempt);
    }
    match progress {
        Progress::Going => None,
        Progress::Closed => Some(at),
        Progress::Spoken => Some(start + kind.opening().len()),
        Progress::Unclosed { resume } => Some(resume),
        Progress::Broken { resume } => {
            prose.doom(frame.open(), resume);
            Some(resume)
        }
        Progress::Void { rest } => match Skip::Rest(kind.closing()).end(bytes, rest, &CALL_OPENINGS) {
            End::At(next) => Some(next),
            End::After(_) => None,
        },
    }
}
