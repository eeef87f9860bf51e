//! Datasets: JSON lines, read in blocks and parsed by several threads, in the order of the file.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use memchr::{memchr, memrchr};
use rayon::prelude::*;

use crate::fields::{self, FieldError, Record};
use crate::{Error, Result, threads};

pub use crate::quarantine::{OnError, Quarantine, Rejected};

/// Bytes read at a time. Memory is bounded by the block and the longest line, not by the file.
const BLOCK: usize = 1 << 20;

/// The longest line end: CRLF.
const LINE_END: usize = 2;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// How a dataset is read. The caller chooses each: the defaults are Python's (`kdfast.config.data`).
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    pub on_error: OnError,
    /// With [`OnError::Quarantine`]: more than this share of bad lines fails the load.
    pub max_rejected_fraction: f64,
    /// A longer line fails the load, with quarantine too: it would not fit into memory.
    pub max_line_bytes: usize,
    /// What the lines are.
    pub lines: fields::Lines,
    /// Take records with `teacher_reasoning_content`.
    pub allow_reasoning: bool,
    /// Number of threads; 0: one a core. It does not change the result.
    pub threads: usize,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// The JSON object of the file's header, if it has one.
    pub header: Option<String>,
    /// Good records.
    pub records: u64,
    /// Bad lines.
    pub rejected: u64,
    /// Blake3 of the file's bytes.
    pub content_hash: [u8; 32],
}

/// Reads the dataset at `path`, giving `sink` the lines of each block in file order, parsed or rejected.
///
/// Lines end in LF or CRLF; a byte order mark at the start of a line is skipped; blank lines are skipped but counted; the last line
/// needs no newline. `sink` decides whether a rejected line fails the load (see [`Quarantine`]).
///
/// Errors: `Io` when the file cannot be read; `Data` for a line beyond the limit and for a file that holds no records.
pub fn read(
    path: &Path,
    options: &ReadOptions,
    sink: &mut dyn FnMut(Vec<std::result::Result<Record, Rejected>>) -> Result<()>,
) -> Result<Summary> {
    let pool = threads::pool(options.threads)?;
    let mut blocks = Blocks::open(path, options.max_line_bytes)?;
    let mut first = true;
    let mut summary = Summary::default();
    let mut next_line = 1;
    let mut opening = true;
    while let Some(block) = blocks.next()? {
        if std::mem::take(&mut first)
            && let Some(what) = no_json_lines(block)
        {
            return Err(
                Error::data(format!("holds no JSON lines (one record a line, UTF-8): {what}")).in_file(path)
            );
        }
        let mut lines = split(block, &mut next_line, options.max_line_bytes);
        if opening && let Some(first) = lines.kept.first() {
            opening = false;
            summary.header = header(&block[first.range.clone()]);
            lines.kept.drain(..usize::from(summary.header.is_some()));
        }
        let parse = |line: &Line| parse(block, line, options);
        let parsed: Vec<_> = match &pool {
            Some(pool) => pool.install(|| lines.kept.par_iter().map(parse).collect()),
            None => lines.kept.iter().map(parse).collect(),
        };
        let bad = parsed.iter().filter(|line| line.is_err()).count() as u64;
        summary.rejected += bad;
        summary.records += parsed.len() as u64 - bad;
        if !parsed.is_empty() {
            sink(parsed)?;
        }
        if let Some(line) = lines.too_long {
            return Err(too_long(path, line, options.max_line_bytes));
        }
    }
    if summary.records + summary.rejected == 0 {
        return Err(Error::data("holds no records").in_file(path));
    }
    summary.content_hash = *blocks.hasher.finalize().as_bytes();
    Ok(summary)
}

/// Reads the file in blocks of whole lines, into one buffer.
struct Blocks<'p> {
    path: &'p Path,
    file: File,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold the file's content.
    filled: usize,
    /// Bytes of the buffer that `next` has returned already.
    taken: usize,
    max_line_bytes: usize,
    ended: bool,
}

impl<'p> Blocks<'p> {
    fn open(path: &'p Path, max_line_bytes: usize) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("read", path, &error))?;
        Ok(Self {
            path,
            file,
            hasher: blake3::Hasher::new(),
            buffer: vec![0; BLOCK],
            filled: 0,
            taken: 0,
            max_line_bytes,
            ended: false,
        })
    }

    /// The next whole lines. A line beyond the limit, or the file's last one, may lack its newline.
    fn next(&mut self) -> Result<Option<&[u8]>> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        while self.taken == 0 && !self.ended {
            let fresh = self.filled;
            self.fill()?;
            let newline = memrchr(b'\n', &self.buffer[fresh..self.filled]);
            if let Some(at) = newline {
                self.taken = fresh + at + 1;
            } else if self.filled > self.max_line_bytes.saturating_add(LINE_END) {
                self.taken = self.filled;
            }
        }
        if self.ended {
            self.taken = self.filled;
        }
        Ok(Some(&self.buffer[..self.taken]).filter(|block| !block.is_empty()))
    }

    /// Reads until the buffer is full or the file ends; a full buffer is doubled first.
    fn fill(&mut self) -> Result<()> {
        if self.buffer.len() == self.filled {
            self.buffer.resize(self.filled * 2, 0);
        }
        while self.filled < self.buffer.len() && !self.ended {
            let room = &mut self.buffer[self.filled..];
            match self.file.read(room) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.hasher.update(&room[..count]);
                    self.filled += count;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", self.path, &error)),
            }
        }
        Ok(())
    }
}

/// What a file is whose first block is not JSON lines, and what to do; `None` where it may be.
fn no_json_lines(block: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "it is compressed with gzip; unpack it (gunzip)"),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it (unzstd)"),
        (b"PK\x03\x04", "it is a zip archive; unpack it (unzip)"),
        (
            b"PAR1",
            "it is a Parquet table; write it as JSON lines (pandas: to_json(orient='records', lines=True))",
        ),
        (
            b"ARROW1",
            "it is an Arrow table; write it as JSON lines (pandas: to_json(orient='records', lines=True))",
        ),
        (b"\xff\xfe", UTF_16),
        (b"\xfe\xff", UTF_16),
    ];
    const UTF_16: &str = "it is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)";
    if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| block.starts_with(magic)) {
        return Some(what);
    }
    if matches!(block, [b'{', 0, ..] | [0, b'{', ..]) {
        return Some(UTF_16);
    }
    let text = block.strip_prefix(BOM).unwrap_or(block).trim_ascii_start();
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let (first, second) = (lines.next()?, lines.next().unwrap_or_default());
    if first
        .strip_prefix(b"[")
        .is_some_and(|rest| [rest, second].concat().trim_ascii_start().starts_with(b"{"))
    {
        return Some("it is one JSON array; write an object a line (jq -c '.[]')");
    }
    let indented =
        second.trim_ascii_start().starts_with(b"\"") && second.starts_with(b" ") | second.starts_with(b"\t");
    (first == b"{" && indented)
        .then_some("it is pretty-printed JSON, a record over many lines; write an object a line (jq -c .)")
}

/// A line that is not blank.
struct Line {
    /// From 1.
    number: u64,
    /// Its bytes in the block, without the newline.
    range: Range<usize>,
}

struct Lines {
    kept: Vec<Line>,
    /// The number of a line beyond the limit. No line after it was looked at.
    too_long: Option<u64>,
}

fn split(block: &[u8], next_line: &mut u64, max_line_bytes: usize) -> Lines {
    let mut lines = Lines { kept: Vec::new(), too_long: None };
    let mut start = 0;
    while start < block.len() && lines.too_long.is_none() {
        let length = memchr(b'\n', &block[start..]).unwrap_or(block.len() - start);
        let line = Line { number: *next_line, range: start..start + length };
        let content = content(&block[line.range.clone()]);
        if content.1.len() > max_line_bytes {
            lines.too_long = Some(line.number);
        } else if !content.1.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            lines.kept.push(line);
        }
        *next_line += 1;
        start += length + 1;
    }
    lines
}

/// How many bytes to skip at the start of a line (a byte order mark: on line 1, or where files were joined), and the line without them and without
/// its carriage return.
fn content(line: &[u8]) -> (usize, &[u8]) {
    let skipped = if line.starts_with(BOM) { BOM.len() } else { 0 };
    let line = &line[skipped..];
    (skipped, line.strip_suffix(b"\r").unwrap_or(line))
}

fn parse(block: &[u8], line: &Line, options: &ReadOptions) -> std::result::Result<Record, Rejected> {
    let raw = &block[line.range.clone()];
    let (skipped, content) = content(raw);
    let parsed = utf8(content)
        .and_then(|text| fields::parse(text, line.number, options.lines, options.allow_reasoning));
    parsed.map_err(|error| Rejected {
        line: line.number,
        column: error.offset.map(|offset| (skipped + offset) as u64 + 1),
        reason: error.reason,
        raw: raw.to_vec(),
    })
}

fn utf8(content: &[u8]) -> std::result::Result<&str, FieldError> {
    std::str::from_utf8(content).map_err(|error| {
        let offset = error.valid_up_to();
        FieldError { offset: Some(offset), reason: format!("invalid UTF-8: byte 0x{:02x}", content[offset]) }
    })
}

/// The header, if `line` (the first that is not blank) is one. A line that is no JSON gets its error from the parser.
fn header(line: &[u8]) -> Option<String> {
    let content = line.strip_prefix(BOM).unwrap_or(line);
    fields::header(std::str::from_utf8(content).ok()?).ok().flatten()
}

fn too_long(path: &Path, line: u64, limit: usize) -> Error {
    let message =
        format!("the line is longer than {limit} bytes; if that is right, raise data.max_line_bytes");
    Error::data(message).at(&path.display().to_string(), line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::io::Write as _;

    const GOOD: &str = r#"{"prompt": "p", "teacher_text": "t"}"#;

    fn options() -> ReadOptions {
        ReadOptions {
            on_error: OnError::Raise,
            max_rejected_fraction: 0.0,
            max_line_bytes: 64 << 20,
            lines: fields::Lines::Records,
            allow_reasoning: false,
            threads: 0,
        }
    }

    fn load(bytes: &[u8], options: &ReadOptions) -> Result<(Summary, Vec<Record>, Vec<Rejected>)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let summary = read(file.path(), options, &mut |lines| {
            for line in lines {
                match line {
                    Ok(record) => good.push(record),
                    Err(rejected) => bad.push(rejected),
                }
            }
            Ok(())
        })?;
        Ok((summary, good, bad))
    }

    #[test]
    fn lines_are_counted_in_every_style() {
        let text = format!("\u{feff}{GOOD}\r\n\n \t\r\n{GOOD}\nnope\n{GOOD}");
        let (summary, good, bad) = load(text.as_bytes(), &options()).unwrap();
        assert_eq!(good.iter().map(|record| record.line).collect::<Vec<_>>(), [1, 4, 6]);
        assert_eq!((bad[0].line, bad[0].column, bad[0].raw.as_slice()), (5, Some(1), &b"nope"[..]));
        assert_eq!((summary.records, summary.rejected), (3, 1));
        assert_eq!(summary.content_hash, *blake3::hash(text.as_bytes()).as_bytes());
    }

    #[test]
    fn other_files_are_named_as_what_they_are() {
        for (bytes, what) in [
            (&b"\x1f\x8b\x08\x00"[..], "gzip"),
            (b"\xff\xfe{\x00", "UTF-16"),
            (b"\x00{\x00\"", "UTF-16"),
            (b" \n[\n{}]", "JSON array"),
            (b"\xef\xbb\xbf{\n  \"prompt\": 1\n}", "pretty-printed"),
            (b"PAR1", "Parquet"),
        ] {
            assert!(load(bytes, &options()).unwrap_err().message.contains(what), "{what}");
        }
        let joined = format!("{GOOD}\n\u{feff}{GOOD}");
        assert_eq!(load(joined.as_bytes(), &options()).unwrap().1.len(), 2);
    }

    #[test]
    fn columns_count_bytes_of_the_line() {
        let (_, _, bad) = load("\u{feff}{\"é\": x}\n{\"a\": \"\u{1}\"}".as_bytes(), &options()).unwrap();
        assert_eq!((bad[0].column, bad[1].column), (Some(11), Some(8)));
        let (_, _, bad) = load(b"{\"a\": \"\xff\"}", &options()).unwrap();
        assert_eq!((bad[0].column, bad[0].reason.as_str()), (Some(8), "invalid UTF-8: byte 0xff"));
    }

    #[test]
    fn blocks_and_threads_do_not_matter() {
        let long = "x".repeat(3 << 20);
        let mut text = String::from("{\"__header__\": {\"v\": 1}}\n");
        for index in 0..9000 {
            let answer =
                if index == 5000 { long.as_str() } else { "an answer of some length, so that blocks fill" };
            let close = if index % 1000 == 7 { "" } else { "}" };
            let _ = writeln!(
                text,
                "{{\"prompt\": \"{index}\", \"truth_text\": \"{answer} {index}\", \"id\": {index}{close}"
            );
        }
        let one = load(text.as_bytes(), &ReadOptions { threads: 1, ..options() }).unwrap();
        let four = load(text.as_bytes(), &ReadOptions { threads: 4, ..options() }).unwrap();
        assert_eq!((one.0.records, one.0.rejected, one.0.header.as_deref()), (8991, 9, Some("{\"v\": 1}")));
        assert_eq!(one, four);
        assert_eq!(one.1.iter().find(|record| record.line == 5002).unwrap().metadata, "{\"id\": 5000}");
    }

    #[test]
    fn limits_and_empty_files() {
        let short = ReadOptions { max_line_bytes: GOOD.len(), ..options() };
        assert_eq!(load(format!("{GOOD}\r\n{GOOD}").as_bytes(), &short).unwrap().1.len(), 2);
        let error = load(format!("{GOOD}\n{GOOD} \n").as_bytes(), &short).unwrap_err();
        assert_eq!((error.line, error.message.contains("max_line_bytes")), (Some(2), true));
        let endless = ReadOptions { max_line_bytes: 3 << 20, ..options() };
        assert_eq!(load(&vec![b'x'; 9 << 20], &endless).unwrap_err().line, Some(1));
        for empty in ["", "\n\n", "{\"__header__\": {}}\n"] {
            assert_eq!(load(empty.as_bytes(), &options()).unwrap_err().message, "holds no records");
        }
        let gone = read(Path::new("/no/such.jsonl"), &options(), &mut |_| Ok(())).unwrap_err();
        assert_eq!(gone.errno, Some(2));
        let folder = read(&std::env::temp_dir(), &options(), &mut |_| Ok(())).unwrap_err();
        assert_eq!(folder.kind, crate::Kind::Io);
    }
}
