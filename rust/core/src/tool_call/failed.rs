//! The attempt that a frame is when it gives no call.

use super::attempt::{Attempt, Reason};
use super::formats::Kind;
use super::frame::Frame;
use super::progress::{Progress, Window};
use super::reading::Reading;

/// What the beginning of an opening at `at` is if the text ends there.
pub(super) fn undecided(at: usize, bare: bool, call: Option<Kind>, reading: Reading<'_>) -> Option<Attempt> {
    let bare = bare && Kind::BARE.is_chosen(true, reading.formats);
    let chosen = bare || call.is_some_and(|kind| kind.is_chosen(false, reading.formats));
    (bare || call.is_some()).then_some(Attempt { at, reason: Reason::Cut, chosen, open: true })
}

/// The attempt that a frame is, after `progress`; [`Progress::Going`] = the text ends here.
pub(super) fn frame_attempt(frame: &Frame, progress: Progress, window: Window<'_>) -> Option<Attempt> {
    let (reason, open) = match progress {
        Progress::Going => frame.failure_at_the_end(window)?,
        _ => (frame.failure(progress, window.reading.formats)?, false),
    };
    let chosen = frame.kind().is_chosen(frame.is_array(), window.reading.formats) && reason != Reason::Format;
    Some(Attempt { at: frame.start(), reason, chosen, open })
}
