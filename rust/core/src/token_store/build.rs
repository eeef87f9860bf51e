//! Building a token store from a JSONL file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use rayon::prelude::*;

use super::columns;
use super::raw_lines::RawLines;
use super::store::{KIND, TokenStore, record_teacher_path};
use crate::annotate::{ANNOTATION_VERSION, Annotator, Options, Row};
use crate::fields::Record;
use crate::jsonl::{self, OnError, Quarantine, ReadOptions, Rejected};
use crate::teacher_store::RecordTeacher;
use crate::template::ChatTemplate;
use crate::tokenize::Tokenizer;
use crate::{Error, Result, ipc, threads};

/// A batch is written when it has this many rows or tokens.
const BATCH_ROWS: usize = 4096;
const BATCH_TOKENS: usize = 1 << 21;

#[derive(Debug, Clone)]
pub struct BuildOptions {
    pub read: ReadOptions,
    pub annotate: Options,
    /// How many of a record's own log-probabilities are kept for each token.
    pub record_k: usize,
}

/// What a build did.
#[derive(Debug, Clone, Default)]
pub struct BuildReport {
    pub path: PathBuf,
    /// The store existed already.
    pub reused: bool,
    pub records: u64,
    pub rows: u64,
    pub rejected: u64,
    /// Rows whose prompt lost bytes in the tokenizer.
    pub prompt_lossy: u64,
    /// Rows with a call that breaks its tool's schema.
    pub invalid_calls: u64,
    /// Rows in whose messages or tools control tokens were encoded as text.
    pub escaped: u64,
    /// Rows whose answer came with its own turn end.
    pub ended_already: u64,
    /// Rows whose prompt or answer was given as text.
    pub raw_text: u64,
    /// Rows whose records have log-probabilities.
    pub record_teacher_rows: u64,
}

impl BuildReport {
    /// The counts as header entries of fixed width: they are written over zeros when they are known.
    fn entries(&self) -> [(&'static str, String); 9] {
        [
            ("records", self.records),
            ("rows", self.rows),
            ("rejected", self.rejected),
            ("prompt_lossy", self.prompt_lossy),
            ("invalid_call_rows", self.invalid_calls),
            ("escaped_rows", self.escaped),
            ("ended_already_rows", self.ended_already),
            ("raw_text_rows", self.raw_text),
            ("record_teacher_rows", self.record_teacher_rows),
        ]
        .map(|(name, count)| (name, format!("{count:020}")))
    }

    fn of(store: &TokenStore) -> Result<Self> {
        Ok(Self {
            path: store.path().to_owned(),
            reused: true,
            records: store.header("records")?,
            rows: store.header("rows")?,
            rejected: store.header("rejected")?,
            prompt_lossy: store.header("prompt_lossy")?,
            invalid_calls: store.header("invalid_call_rows")?,
            escaped: store.header("escaped_rows")?,
            ended_already: store.header("ended_already_rows")?,
            raw_text: store.header("raw_text_rows")?,
            record_teacher_rows: store.header("record_teacher_rows")?,
        })
    }
}

impl TokenStore {
    /// Tokenises and annotates `jsonl` into `directory`, or finds the store that an earlier call left there.
    ///
    /// The store's name is a hash of all that its content depends on. It is written under another name and renamed: a
    /// store that exists is whole.
    pub fn build(
        jsonl: &Path,
        directory: &Path,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        options: &BuildOptions,
    ) -> Result<BuildReport> {
        let content = hash_file(jsonl)?;
        let mut identity = identity(&content, tokenizer, template, options);
        let key = blake3::hash(format!("{identity:?}").as_bytes()).to_hex();
        let path = directory.join(format!("{}.tokens.arrow", &key[..16]));
        if let Some(report) = existing(&path, &options.read)? {
            return Ok(report);
        }
        std::fs::create_dir_all(directory).map_err(|e| Error::io("create the directory", directory, &e))?;
        // Several processes (the ranks of a run) may need the same store: one builds it, the others wait and find it.
        let lock = ipc::open_lock(&path)?;
        lock.lock().map_err(|e| Error::io("lock", &path, &e))?;
        if let Some(report) = existing(&path, &options.read)? {
            return Ok(report);
        }
        let annotator = Annotator::new(tokenizer, template, options.annotate.clone())?;
        let turn_end: Vec<String> = annotator.turn_end_ids().iter().map(u32::to_string).collect();
        identity.push(("turn_end_ids", turn_end.join(" ")));
        let pool = threads::pool(options.read.threads)?;
        let mut builder = Builder::new(jsonl, path, identity, tokenizer, options)?;
        let summary = jsonl::read(jsonl, &options.read, &mut |records| {
            let annotated = match &pool {
                Some(pool) => {
                    pool.install(|| records.into_par_iter().map(|r| annotate(r, &annotator)).collect())
                }
                None => records.into_iter().map(|r| annotate(r, &annotator)).collect(),
            };
            builder.take(annotated)
        })?;
        if summary.content_hash != *content.as_bytes() {
            return Err(Error::data("the file was changed while it was read: run again").in_file(jsonl));
        }
        builder.finish()
    }
}

type Annotated = std::result::Result<Vec<Row>, Rejected>;

fn annotate(record: std::result::Result<Record, Rejected>, annotator: &Annotator) -> Annotated {
    let record = record?;
    annotator.annotate(&record).map_err(|error| Rejected {
        line: record.line,
        column: None,
        reason: error.message,
        raw: Vec::new(),
    })
}

/// All that a store's content depends on, as header entries.
fn identity(
    content: &blake3::Hash,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    options: &BuildOptions,
) -> Vec<(&'static str, String)> {
    vec![
        ("content", content.to_hex().to_string()),
        ("tokenizer", tokenizer.fingerprint().to_owned()),
        ("template", template.fingerprint()),
        ("supervise", options.annotate.supervise.name().to_owned()),
        ("prefix_tokens", options.annotate.prefix_tokens.to_string()),
        ("record_k", options.record_k.to_string()),
        ("allow_reasoning", options.read.allow_reasoning.to_string()),
        ("max_line_bytes", options.read.max_line_bytes.to_string()),
        ("vocab_size", tokenizer.vocab_size().to_string()),
        ("layout", ipc::SCHEMA_VERSION.to_string()),
        ("annotation", ANNOTATION_VERSION.to_string()),
        ("formats", options.annotate.formats.names().collect::<Vec<_>>().join(" ")),
        ("content_tokens", options.annotate.content_tokens.name().to_owned()),
        ("invalid_calls", options.annotate.invalid_calls.name().to_owned()),
    ]
}

/// The store at `path`, if it exists and this load may use it.
fn existing(path: &Path, read: &ReadOptions) -> Result<Option<BuildReport>> {
    if !path.exists() {
        return Ok(None);
    }
    let report = BuildReport::of(&TokenStore::open(path)?)?;
    Ok(acceptable(&report, read).then_some(report))
}

/// Whether this load may use the store of `report`: if lines were rejected, it must be one that would reject them too.
fn acceptable(report: &BuildReport, read: &ReadOptions) -> bool {
    let whole = report.record_teacher_rows == 0 || record_teacher_path(&report.path).exists();
    let share = report.rejected as f64 / (report.records + report.rejected).max(1) as f64;
    whole
        && (report.rejected == 0
            || (read.on_error == OnError::Quarantine && share <= read.max_rejected_fraction))
}

fn hash_file(path: &Path) -> Result<blake3::Hash> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, &e))?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match file.read(&mut block).map_err(|e| Error::io("read", path, &e))? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&block[..count]),
        };
    }
}

/// A store while it is written.
struct Builder {
    raw: RawLines,
    quarantine: Quarantine,
    file: ipc::Unfinished,
    identity: Vec<(&'static str, String)>,
    schema: SchemaRef,
    rows: Vec<Row>,
    tokens: usize,
    teacher: RecordTeacher,
    report: BuildReport,
}

impl Builder {
    fn new(
        jsonl: &Path,
        path: PathBuf,
        identity: Vec<(&'static str, String)>,
        tokenizer: &Tokenizer,
        options: &BuildOptions,
    ) -> Result<Self> {
        let report = BuildReport { path, ..BuildReport::default() };
        let schema = columns::schema(ipc::header(KIND, identity.iter().cloned().chain(report.entries())));
        let teacher =
            RecordTeacher::new(record_teacher_path(&report.path), options.record_k, tokenizer.vocab_size());
        let file = ipc::Unfinished::create(&report.path, &schema)?;
        Ok(Self {
            raw: RawLines::new(jsonl),
            quarantine: Quarantine::new(jsonl, options.read.on_error, options.read.max_rejected_fraction),
            file,
            identity,
            schema,
            rows: Vec::new(),
            tokens: 0,
            teacher,
            report,
        })
    }

    fn take(&mut self, annotated: Vec<Annotated>) -> Result<()> {
        for rows in annotated {
            match rows {
                Ok(rows) => self.push(rows)?,
                Err(mut rejected) => {
                    if rejected.raw.is_empty() {
                        rejected.raw = self.raw.get(rejected.line)?;
                    }
                    self.report.rejected += 1;
                    self.quarantine.reject(rejected)?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, rows: Vec<Row>) -> Result<()> {
        self.report.records += 1;
        for row in rows {
            self.report.rows += 1;
            self.report.prompt_lossy += u64::from(row.prompt_lossy);
            self.report.invalid_calls += u64::from(!row.call_valid);
            self.report.escaped += u64::from(row.escaped);
            self.report.ended_already += u64::from(row.ended_already);
            self.report.raw_text += u64::from(row.raw_text);
            self.report.record_teacher_rows += u64::from(row.topk.is_some());
            self.tokens += row.ids.len();
            self.rows.push(row);
        }
        if self.rows.len() >= BATCH_ROWS || self.tokens >= BATCH_TOKENS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.file.append(&columns::batch(&self.schema, &self.rows)?)?;
        self.teacher.append(&self.rows)?;
        self.rows.clear();
        self.tokens = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<BuildReport> {
        self.flush()?;
        self.quarantine.finish(self.report.records + self.report.rejected)?;
        // The counts are known now: overwrite the header by one of the same length.
        let entries = self.identity.into_iter().chain(self.report.entries());
        self.teacher.finish()?;
        self.file.finish(&columns::schema(ipc::header(KIND, entries)))?;
        Ok(self.report)
    }
}
