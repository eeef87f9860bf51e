//! The one door between Python and the core: release the GIL, run, map the error.

use kdfast_core::{Error, Kind};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The number for an operating-system error without one (`EIO`): Python's `OSError` needs a number.
const UNKNOWN_ERRNO: i32 = 5;

/// Runs `work` without the GIL and raises its error as the class that `kdfast.errors` has for it.
pub fn enter<T: Send>(py: Python<'_>, work: impl FnOnce() -> kdfast_core::Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| to_python(py, &error))
}

/// Input from this size on is read without the GIL. For less, releasing and taking the GIL costs more than reading.
const LONG_BYTES: usize = 4096;

/// [`enter`] for an input of `bytes` bytes: a short one is read with the GIL held.
pub fn enter_if_long<T: Send>(
    py: Python<'_>,
    bytes: usize,
    work: impl FnOnce() -> kdfast_core::Result<T> + Send,
) -> PyResult<T> {
    if bytes >= LONG_BYTES { enter(py, work) } else { work().map_err(|error| to_python(py, &error)) }
}

/// The Python exception for `error`.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    build(py, error).unwrap_or_else(|failure| failure)
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let errors = || py.import("kdfast.errors");
    let exception = match error.kind {
        Kind::Data => errors()?.getattr("DataError")?.call1((
            &error.message,
            error.source.as_deref(),
            error.line,
            error.column,
        ))?,
        // These two have no fields for file and line, so the message begins with them.
        Kind::Schema => errors()?.getattr("SchemaError")?.call1((error.to_string(),))?,
        Kind::ToolCall => {
            errors()?.getattr("ToolCallError")?.call1((error.to_string(), issues(py, error)?))?
        }
        // Python chooses FileNotFoundError, PermissionError, ... by the number.
        Kind::Io => {
            let errno = error.errno.unwrap_or(UNKNOWN_ERRNO);
            py.get_type::<PyOSError>().call1((errno, &error.message, error.source.as_deref()))?
        }
    };
    Ok(PyErr::from_value(exception))
}

/// `error`'s issues as a list of dicts.
fn issues<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyList>> {
    issue_dicts(py, &error.issues)
}

/// A dict for each issue: `instance_path`, `schema_path`, `message`.
pub fn issue_dicts<'py>(
    py: Python<'py>,
    issues: &[kdfast_core::error::Issue],
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for issue in issues {
        let entry = PyDict::new(py);
        entry.set_item("instance_path", &issue.instance_path)?;
        entry.set_item("schema_path", &issue.schema_path)?;
        entry.set_item("message", &issue.message)?;
        list.append(entry)?;
    }
    Ok(list)
}
