//! A frame, from its opening to its closing, read byte by byte, and the calls inside.

use crate::json::Cursor;

use super::attempt::Reason;
use super::call::ToolCall;
use super::formats::{CALL_OPENINGS, Formats, Kind, Place, is_word};
use super::machine::{Event, Fault, Machine};
use super::object::{self, ARGUMENTS_KEYS, LIST_KEY, NAME_KEYS};
use super::progress::{Progress, Window};
use super::reading::Reading;
use super::spoken::is_prose;
use super::thinking::{Mark, mark};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the word right after a fence's opening.
    Word,
    /// Before the JSON.
    Lead,
    /// In something that begins at this place and is no JSON.
    Said(usize),
    Body,
    /// After the JSON; what must be a closing, or the opening of a further frame, begins at this place.
    Tail(Option<usize>),
}

#[expect(clippy::struct_excessive_bools, reason = "what is known of the frame so far")]
#[derive(Debug, Clone)]
pub(super) struct Frame {
    kind: Kind,
    start: usize,
    phase: Phase,
    machine: Machine,
    /// The frame's JSON is an array.
    array: bool,
    /// The list of calls that is being read: where in the frame it is, and the depth of its elements.
    list: Option<(Place, usize)>,
    /// [`LIST_KEY`] was read: if the next value is an array, it is a list of calls.
    list_next: bool,
    /// There was a list of calls, so the object around it is no call.
    listed: bool,
    /// A list has an element that is no call.
    spoiled: bool,
    /// Its JSON is of a kind that its format does not have.
    void: bool,
    /// Calls of a chosen format: the index of the first one among all calls, and how many there are.
    first: usize,
    count: usize,
    /// Why other calls do not count.
    uncounted: Option<Reason>,
    /// The end of the last call, of any format.
    last: Option<usize>,
    /// It has an object that is no call and looks like one.
    like: bool,
    /// The keys that a call has: a name's, and one of arguments.
    keys: [bool; 2],
    /// It may be a bracket of prose, with a blank before it, if it has no object.
    bracket: bool,
    object: bool,
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
            array: false,
            list: None,
            list_next: false,
            listed: false,
            spoiled: false,
            void: false,
            first: calls,
            count: 0,
            uncounted: None,
            last: None,
            like: false,
            keys: [false; 2],
            bracket: false,
            object: false,
        }
    }

    pub fn start(&self) -> usize {
        self.start
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Takes the byte at `at`; `window` has the frame up to it. A call that this byte completes is added to `calls`; if
    /// it shows that a complete call is none, that is removed.
    pub fn push(&mut self, at: usize, window: Window<'_>, calls: &mut Vec<ToolCall>) -> Progress {
        let byte = window.bytes[at - window.base];
        match self.phase {
            Phase::Word if is_word(byte) => Progress::Going,
            Phase::Word | Phase::Lead => match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {
                    self.phase = Phase::Lead;
                    Progress::Going
                }
                b'{' | b'[' => self.begin(byte, at, window, calls),
                _ if self.kind.tagged() => self.said(at, at, window),
                _ => self.broken(),
            },
            Phase::Said(start) => self.said(start, at, window),
            Phase::Body => self.body(byte, at, window, calls),
            Phase::Tail(None) if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => Progress::Going,
            Phase::Tail(start) => self.tail(start.unwrap_or(at), at, window, calls),
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

    /// Whether its JSON began with a square bracket.
    pub fn is_array(&self) -> bool {
        self.array
    }

    /// The places of the open brackets, ascending.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        self.machine.open()
    }

    /// Why the frame, ended as `progress` says, gives no call that counts, or one too few.
    pub fn failure(&self, progress: Progress, formats: Formats) -> Option<Reason> {
        let any = self.last.is_some();
        match progress {
            Progress::Going | Progress::Spoken => None,
            Progress::Closed if any && !self.spoiled => self.uncounted,
            Progress::Closed if self.like && !self.spoiled => Some(Reason::Arguments),
            Progress::Closed => (any || self.kind.tagged() || self.like).then_some(Reason::Malformed),
            Progress::Unclosed { .. } if any && !self.spoiled => {
                Some(self.uncounted.unwrap_or(Reason::Unclosed))
            }
            _ => (any || self.looks_like_a_call(formats)).then_some(Reason::Malformed),
        }
    }

    /// The same if the text ends here; and whether what may follow can still change it.
    pub fn failure_at_the_end(&self, window: Window<'_>) -> Option<(Reason, bool)> {
        let any = self.last.is_some();
        let barren = !any && matches!(self.phase, Phase::Tail(_));
        let void = self.void && (self.object || !self.bracket);
        let lost = void || self.spoiled && any || self.kind.tagged() && (self.spoiled || barren);
        let whole = any && !lost && matches!(self.phase, Phase::Tail(_));
        let reason = match self.phase {
            _ if lost => Reason::Malformed,
            _ if whole => self.uncounted.unwrap_or(Reason::Unclosed),
            Phase::Said(_) if self.spaced(window) => return None,
            _ if self.kind.is_chosen(self.array, window.reading.formats) => {
                self.begun().then_some(Reason::Cut)?
            }
            _ => (any || self.looks_like_a_call(window.reading.formats)).then_some(Reason::Cut)?,
        };
        Some((reason, !lost))
    }

    /// Whether it has what only calls have. In a chosen format less will do.
    fn looks_like_a_call(&self, formats: Formats) -> bool {
        let begun = self.keys.contains(&true) || self.listed && !self.array;
        let chosen = begun && self.kind.is_chosen(self.array, formats);
        self.kind.tagged() || self.like || self.keys == [true; 2] || chosen
    }

    /// Whether a blank follows the opening.
    fn spaced(&self, window: Window<'_>) -> bool {
        let at = self.start + self.kind.opening().len();
        window.bytes(at, at + 1) == b" "
    }

    /// Takes the first byte of the JSON.
    fn begin(&mut self, byte: u8, at: usize, window: Window<'_>, calls: &mut Vec<ToolCall>) -> Progress {
        self.array = byte == b'[';
        let known = if self.array { self.kind.array() } else { self.kind.object() };
        if !known && !self.kind.tagged() {
            return self.broken();
        }
        self.void = !known;
        self.bracket = self.void && self.spaced(window);
        if self.array && known {
            self.list = Some((Place::Array, 1));
        }
        self.listed = self.array;
        self.body(byte, at, window, calls)
    }

    /// What follows the opening of a call, from `start` to `at`, is no JSON.
    fn said(&mut self, start: usize, at: usize, window: Window<'_>) -> Progress {
        self.phase = Phase::Said(start);
        let gap = window.bytes(self.start + self.kind.opening().len(), start);
        match is_prose(window.bytes(start, at + 1), gap, &CALL_OPENINGS) {
            None => Progress::Going,
            Some(true) => Progress::Spoken,
            Some(false) => self.broken(),
        }
    }

    fn body(&mut self, byte: u8, at: usize, window: Window<'_>, calls: &mut Vec<ToolCall>) -> Progress {
        self.phase = Phase::Body;
        let event = match self.machine.push(byte, at) {
            Ok(event) => event,
            // Resume after this bracket. Do not retry the open ones: they nest almost as deep.
            Err(Fault::Depth) if self.kind.closing().is_empty() || self.kind.fence() => {
                return Progress::Broken { resume: at + 1 };
            }
            Err(_) => return self.broken(),
        };
        match event {
            Event::Nothing => {}
            Event::Key(start) => self.key(start, at, window),
            Event::Scalar => {
                self.list_next = false;
                self.element(self.machine.depth(), false);
            }
            Event::Opened => {
                let depth = self.machine.depth();
                self.object |= byte == b'{';
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
        self.phase = Phase::Tail(None);
        if self.bracket && !self.object {
            return Progress::Spoken;
        }
        if self.kind.closing().is_empty() { self.finish(at, calls) } else { Progress::Going }
    }

    /// Takes note of a key: from the quote at `start` to the one at `at`.
    fn key(&mut self, start: usize, at: usize, window: Window<'_>) {
        let depth = self.machine.depth();
        let of_call = self.list.map_or(1, |(_, depth)| depth + 1);
        self.list_next = false;
        if depth != 1 && depth != of_call {
            return;
        }
        let Some(key) = window.text(start, at + 1).and_then(|text| Cursor::new(text, 0).string().ok()) else {
            return;
        };
        let key = key.text();
        self.list_next = depth == 1 && self.kind.wide() && self.list.is_none() && key == LIST_KEY;
        if depth == of_call {
            self.keys[0] |= NAME_KEYS.contains(&&*key);
            self.keys[1] |= ARGUMENTS_KEYS.contains(&&*key);
        }
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
            Some((place, list)) if depth == list => place,
            None if depth == 0 && !self.listed => Place::Alone,
            _ => return,
        };
        let found = self.call(place, start, at, window, calls);
        self.spoiled |= !found && place != Place::Alone;
    }

    /// Reads the object from `start` to `at`: whether it is a call. It joins `calls` if it counts.
    fn call(
        &mut self,
        place: Place,
        start: usize,
        at: usize,
        window: Window<'_>,
        calls: &mut Vec<ToolCall>,
    ) -> bool {
        let Some(text) = window.text(start, at + 1) else { return false };
        let Reading { formats, tools, .. } = window.reading;
        let read = object::read(&mut Cursor::new(text, 0), self.kind.allow(place), tools);
        let call = match read {
            Ok(Ok(call)) => call,
            Ok(Err(like)) => {
                self.like |= like;
                return false;
            }
            Err(_) => return false,
        };
        let label = if self.spoiled { None } else { self.kind.label(place, call.form, formats) };
        let Some((format, counts)) = label else {
            self.like = true;
            return false;
        };
        self.last = Some(at + 1);
        if counts {
            let call = ToolCall::new(format, call, start);
            let alone = place == Place::Alone;
            calls.push(if alone { ToolCall { span: self.start..at + 1, ..call } } else { call });
            self.count += 1;
        } else {
            self.uncounted = Some(if call.form.lenient { Reason::Arguments } else { Reason::Format });
        }
        true
    }

    /// After the JSON: the text from `start` to `at` is a closing, or the opening of a further frame, or part of one.
    fn tail(&mut self, start: usize, at: usize, window: Window<'_>, calls: &mut Vec<ToolCall>) -> Progress {
        self.phase = Phase::Tail(Some(start));
        let said = window.bytes(start, at + 1);
        match (mark(said, [self.kind.closing()]), mark(said, CALL_OPENINGS)) {
            (Mark::Whole(_), _) => self.finish(at, calls),
            (_, Mark::Whole(_)) => Progress::Unclosed { resume: start },
            (Mark::Begun, _) | (_, Mark::Begun) => Progress::Going,
            _ if self.last.is_some() || self.kind.tagged() => {
                calls.truncate(self.first);
                self.count = 0;
                Progress::Void { rest: start }
            }
            _ => self.broken(),
        }
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

    fn broken(&self) -> Progress {
        match self.last {
            // A bracket of prose: `the <tool_call> [tag]`.
            None if self.bracket && !self.object => Progress::Spoken,
            Some(end) => Progress::Broken { resume: end },
            None if self.kind.tagged() && !self.kind.closing().is_empty() => {
                Progress::Void { rest: self.start + self.kind.opening().len() }
            }
            None => Progress::Broken { resume: self.start + 1 },
        }
    }
}
