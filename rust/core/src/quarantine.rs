//! Bad lines: the load fails at the first one, or they are put aside, counted and reported.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::json::quote;
use crate::{Error, Result};

/// The most bytes of bad lines that are kept in memory, for a large file that is nearly all bad.
const HELD_BYTES: usize = 256 << 20;

/// How much of a bad line an error quotes, in bytes before and after the fault.
const QUOTED_BYTES: usize = 40;

/// What to do with a bad line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Fail the load.
    Raise,
    /// Put it aside.
    Quarantine,
}

/// A bad line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// From 1.
    pub line: u64,
    /// From 1, counted in bytes of the line as it is in the file (with a byte order mark); `None` when no single
    /// place is wrong.
    pub column: Option<u64>,
    pub reason: String,
    /// The line as it is in the file, without its newline.
    pub raw: Vec<u8>,
}

/// The bad lines of one load. While [`crate::jsonl::read`] runs, `reject` each bad line; `finish` at the end.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
    on_error: OnError,
    max_fraction: f64,
    held_bytes: usize,
    rejected: Vec<Rejected>,
}

impl Quarantine {
    /// For the load of the dataset at `path`. With [`OnError::Quarantine`] the load fails when more than
    /// `max_fraction` of the lines are bad.
    pub fn new(path: &Path, on_error: OnError, max_fraction: f64) -> Self {
        Self { path: path.to_owned(), on_error, max_fraction, held_bytes: 0, rejected: Vec::new() }
    }

    /// Takes a bad line, or fails with its file, line, column, reason and a quote of it.
    pub fn reject(&mut self, rejected: Rejected) -> Result<()> {
        if self.on_error == OnError::Raise {
            return Err(self.error(&rejected));
        }
        self.held_bytes += rejected.raw.len();
        self.rejected.push(rejected);
        if self.held_bytes > HELD_BYTES {
            let message = format!("more than {} MiB of bad lines", HELD_BYTES >> 20);
            return Err(Error::data(message).in_file(&self.path));
        }
        Ok(())
    }

    /// Bad lines so far.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Writes the bad lines beside the dataset and returns them; fails when there are more than allowed.
    ///
    /// `<file>.rejected.jsonl` holds each bad line unchanged, `<file>.rejected.reasons.jsonl` in the same order an
    /// object with `line`, `column` and `reason`. Each is written whole or not at all, and also when the load then
    /// fails. They stay until another load rejects something. `total` counts good and bad lines.
    pub fn finish(self, total: u64) -> Result<Vec<Rejected>> {
        if self.rejected.is_empty() {
            return Ok(self.rejected);
        }
        let mut lines = Vec::with_capacity(self.held_bytes + self.rejected.len());
        let mut reasons = String::new();
        for rejected in &self.rejected {
            lines.extend_from_slice(&rejected.raw);
            lines.push(b'\n');
            let column = rejected.column.map_or("null".to_owned(), |column| column.to_string());
            let _ = write!(reasons, "{{\"line\": {}, \"column\": {column}, \"reason\": ", rejected.line);
            quote(&rejected.reason, &mut reasons);
            reasons.push_str("}\n");
        }
        let aside = self.beside(".rejected.jsonl");
        replace(&aside, &lines)?;
        replace(&self.beside(".rejected.reasons.jsonl"), reasons.as_bytes())?;
        let bad = self.rejected.len();
        if bad as f64 > self.max_fraction * total as f64 {
            let first = self.error(&self.rejected[0]);
            return Err(Error::data(format!(
                "{bad} of {total} lines are bad, more than data.max_rejected_fraction allows ({}); they are in {}; the first: {}",
                self.max_fraction,
                aside.display(),
                first.message,
            ))
            .at(&self.path.display().to_string(), self.rejected[0].line));
        }
        Ok(self.rejected)
    }

    fn error(&self, rejected: &Rejected) -> Error {
        let message = format!("{}; near: {:?}", rejected.reason, near(rejected));
        let error = Error::data(message).at(&self.path.display().to_string(), rejected.line);
        match rejected.column {
            Some(column) => error.column(column),
            None => error,
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(ending);
        name.into()
    }
}

/// The part of the line around the fault.
fn near(rejected: &Rejected) -> String {
    let fault = rejected.column.map_or(0, |column| column as usize - 1).min(rejected.raw.len());
    let start = fault.saturating_sub(QUOTED_BYTES);
    let end = (fault + QUOTED_BYTES).min(rejected.raw.len());
    let middle = String::from_utf8_lossy(&rejected.raw[start..end]);
    let mark = |cut: bool| if cut { "..." } else { "" };
    format!("{}{}{}", mark(start > 0), middle, mark(end < rejected.raw.len()))
}

/// Puts `bytes` at `path` whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut unfinished = path.to_owned().into_os_string();
    unfinished.push(format!(".{}.tmp", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let written = File::create(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|error| {
        // Delete the partial file; ignore failure: the write error is the one to report.
        let _ = fs::remove_file(&unfinished);
        Error::io("write", path, &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(line: u64) -> Rejected {
        Rejected { line, column: Some(3), reason: "no \"answer\"".into(), raw: b"{}\xff\r".to_vec() }
    }

    #[test]
    fn raising_names_the_place_and_quotes_the_line() {
        let mut quarantine = Quarantine::new(Path::new("d.jsonl"), OnError::Raise, 1.0);
        let error = quarantine.reject(bad(7)).unwrap_err();
        assert_eq!(error.to_string(), "d.jsonl:7:3: no \"answer\"; near: \"{}\u{fffd}\\r\"");
    }

    #[test]
    fn bad_lines_are_put_aside_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.jsonl");
        let load = |fraction| {
            let mut quarantine = Quarantine::new(&path, OnError::Quarantine, fraction);
            quarantine.reject(bad(2)).unwrap();
            quarantine.reject(bad(5)).unwrap();
            quarantine.finish(10)
        };
        assert_eq!(load(0.2).unwrap(), [bad(2), bad(5)]);
        let error = load(0.19).unwrap_err();
        assert!(error.message.starts_with("2 of 10 lines are bad"), "{}", error.message);
        assert_eq!(fs::read(folder.path().join("d.jsonl.rejected.jsonl")).unwrap(), b"{}\xff\r\n{}\xff\r\n");
        let reasons = fs::read_to_string(folder.path().join("d.jsonl.rejected.reasons.jsonl")).unwrap();
        assert_eq!(reasons.lines().next(), Some(r#"{"line": 2, "column": 3, "reason": "no \"answer\""}"#));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
