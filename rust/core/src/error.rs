//! The one error type of the core. `kdfast-py` maps each [`Kind`] to its Python class.

use std::fmt;
use std::path::Path;

/// Which Python exception an error becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bad input data: a record, a store, a tokenizer file (`DataError`).
    Data,
    /// A tool definition that is no JSON Schema (`SchemaError`).
    Schema,
    /// A tool call that breaks its schema (`ToolCallError`).
    ToolCall,
    /// The machine failed us: no such file, no permission, disk full (`OSError`).
    Io,
}

/// One way in which a tool call breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// JSON pointer into the instance (`/arguments/city`).
    pub instance_path: String,
    /// JSON pointer into the schema.
    pub schema_path: String,
    pub message: String,
}

/// An error and where its cause is.
///
/// `message` is lower case, names what is wrong, gives its value and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    /// The file (or another name of the input).
    pub source: Option<String>,
    /// 1-based line.
    pub line: Option<u64>,
    /// 1-based column, counted in bytes.
    pub column: Option<u64>,
    /// For [`Kind::ToolCall`].
    pub issues: Vec<Issue>,
    /// For [`Kind::Io`]: the operating system's error number.
    pub errno: Option<i32>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            line: None,
            column: None,
            issues: Vec::new(),
            errno: None,
        }
    }

    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::Data, message)
    }

    pub fn schema(message: impl Into<String>) -> Self {
        Self::new(Kind::Schema, message)
    }

    pub fn tool_call(message: impl Into<String>, issues: Vec<Issue>) -> Self {
        Self { issues, ..Self::new(Kind::ToolCall, message) }
    }

    /// An operating-system error on `path`; `doing` is a verb ("read", "write").
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self {
            source: Some(path.display().to_string()),
            errno: error.raw_os_error(),
            ..Self::new(Kind::Io, format!("cannot {doing}: {error}"))
        }
    }

    #[must_use]
    pub fn at(mut self, source: &str, line: u64) -> Self {
        self.source = Some(source.to_owned());
        self.line = Some(line);
        self
    }

    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        self.source = Some(path.display().to_string());
        self
    }

    #[must_use]
    pub fn column(mut self, column: u64) -> Self {
        self.column = Some(column);
        self
    }
}

impl fmt::Display for Error {
    /// `file:line:column: message`, leaving out what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}:")?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
                if let Some(column) = self.column {
                    write!(f, "{column}:")?;
                }
            }
            write!(f, " ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
