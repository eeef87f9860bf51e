//! `TokenStore` and `BuildReport`.

use std::collections::HashMap;
use std::path::PathBuf;

use kdfast_core::annotate::{ContentTokens, InvalidCalls, Options, Supervise};
use kdfast_core::fields::Lines;
use kdfast_core::jsonl::ReadOptions;
use kdfast_core::token_store::{self, BuildOptions, CutRow, List, SPANS};
use kdfast_core::{Error, Result};
use numpy::{IntoPyArray, PyArray1, PyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{shaped, spans};
use crate::boundary::{enter, to_python};
use crate::jsonl::on_error_named;
use crate::reading::formats_named;
use crate::template::ChatTemplate;
use crate::tokenize::Tokenizer;

/// What a build did.
#[pyclass(frozen, get_all, module = "kdfast._rust")]
pub struct BuildReport {
    path: PathBuf,
    reused: bool,
    records: u64,
    rows: u64,
    rejected: u64,
    prompt_lossy: u64,
    invalid_calls: u64,
    escaped: u64,
    ended_already: u64,
    raw_text: u64,
    record_teacher_rows: u64,
}

/// A mapped token store.
#[pyclass(frozen, module = "kdfast._rust")]
pub struct TokenStore(pub token_store::TokenStore);

#[pymethods]
impl TokenStore {
    #[staticmethod]
    #[pyo3(signature = (path, directory, tokenizer, template, *, supervise, prefix_tokens, formats, invalid_calls, content_tokens, on_error,
        max_rejected_fraction, max_line_bytes, allow_reasoning, record_k, threads))]
    #[allow(clippy::too_many_arguments)] // one a keyword of the Python call
    fn build(
        py: Python<'_>,
        path: PathBuf,
        directory: PathBuf,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        supervise: &str,
        prefix_tokens: usize,
        formats: Vec<String>,
        invalid_calls: &str,
        content_tokens: &str,
        on_error: &str,
        max_rejected_fraction: f64,
        max_line_bytes: usize,
        allow_reasoning: bool,
        record_k: usize,
        threads: usize,
    ) -> PyResult<BuildReport> {
        let supervise = match supervise {
            "last" => Supervise::Last,
            "all" => Supervise::All,
            other => {
                return Err(PyValueError::new_err(format!(
                    "supervise must be 'last' or 'all', got '{other}'"
                )));
            }
        };
        let invalid_calls = match invalid_calls {
            "keep" => InvalidCalls::Keep,
            "reject" => InvalidCalls::Reject,
            other => {
                return Err(PyValueError::new_err(format!(
                    "invalid_calls must be 'keep' or 'reject', got '{other}'"
                )));
            }
        };
        let content_tokens = match content_tokens {
            "escape" => ContentTokens::Escape,
            "refuse" => ContentTokens::Refuse,
            "allow" => ContentTokens::Allow,
            other => {
                return Err(PyValueError::new_err(format!(
                    "content_tokens must be 'escape', 'refuse' or 'allow', got '{other}'"
                )));
            }
        };
        let on_error = on_error_named(on_error)?;
        let formats = formats_named(Some(formats))?;
        let options = BuildOptions {
            read: ReadOptions {
                on_error,
                max_rejected_fraction,
                max_line_bytes,
                lines: Lines::Records,
                allow_reasoning,
                threads,
            },
            annotate: Options { supervise, prefix_tokens, formats, invalid_calls, content_tokens },
            record_k,
        };
        let report = enter(py, || {
            token_store::TokenStore::build(&path, &directory, &tokenizer.0, &template.core, &options)
        })?;
        Ok(BuildReport {
            path: report.path,
            reused: report.reused,
            records: report.records,
            rows: report.rows,
            rejected: report.rejected,
            prompt_lossy: report.prompt_lossy,
            invalid_calls: report.invalid_calls,
            escaped: report.escaped,
            ended_already: report.ended_already,
            raw_text: report.raw_text,
            record_teacher_rows: report.record_teacher_rows,
        })
    }

    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        enter(py, || token_store::TokenStore::open(&path)).map(Self)
    }

    /// Several stores as one.
    #[staticmethod]
    fn open_all(py: Python<'_>, paths: Vec<PathBuf>) -> PyResult<Self> {
        enter(py, || token_store::TokenStore::open_all(&paths)).map(Self)
    }

    /// Which of the files a row is in.
    fn file(&self, index: usize) -> usize {
        self.0.file(index)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// The file's header, `kdfast.` before each key.
    fn header(&self) -> HashMap<&str, &str> {
        self.0.headers().collect()
    }

    fn lengths<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i32>> {
        py.detach(|| self.0.lengths()).into_pyarray(py)
    }

    fn fit<'py>(&self, py: Python<'py>, max_length: usize) -> Bound<'py, PyArray1<i32>> {
        py.detach(|| self.0.fit(max_length)).into_pyarray(py)
    }

    fn row_keys<'py>(&self, py: Python<'py>, fingerprint: &str) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
        let keys = py.detach(|| self.0.row_keys(fingerprint));
        let rows = keys.len();
        shaped(py, keys.into_iter().flatten().collect(), &[rows, 16])
    }

    #[pyo3(signature = (index, max_length=None))]
    fn row<'py>(
        &self,
        py: Python<'py>,
        index: usize,
        max_length: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let cut = self.cut(index, max_length).map_err(|e| to_python(py, &e))?;
        row_dict(py, &cut)
    }

    fn prompt_ids<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let row = self.0.row(index).map_err(|e| to_python(py, &e))?;
        Ok(PyArray1::from_slice(py, &row.ids()[..row.response().start]))
    }

    fn line(&self, py: Python<'_>, index: usize) -> PyResult<i64> {
        Ok(self.0.row(index).map_err(|e| to_python(py, &e))?.line())
    }

    fn metadata(&self, py: Python<'_>, index: usize) -> PyResult<&str> {
        Ok(self.0.row(index).map_err(|e| to_python(py, &e))?.metadata())
    }

    fn tools(&self, py: Python<'_>, index: usize) -> PyResult<Option<&str>> {
        Ok(self.0.row(index).map_err(|e| to_python(py, &e))?.tools())
    }

    /// The file with the records' own log-probabilities.
    #[getter]
    fn record_teacher_path(&self, py: Python<'_>) -> PyResult<Option<PathBuf>> {
        self.0.record_teacher_path().map_err(|e| to_python(py, &e))
    }

    fn audit(&self, py: Python<'_>) -> Vec<u64> {
        py.detach(|| self.0.audit())
    }
}

impl TokenStore {
    fn cut(&self, index: usize, max_length: Option<usize>) -> Result<CutRow<'_>> {
        let row = self.0.row(index)?;
        CutRow::new(row, max_length.unwrap_or(usize::MAX)).ok_or_else(|| {
            Error::data(format!(
                "row {index} (line {}) cannot be cut to max_length {}",
                row.line(),
                max_length.unwrap_or_default()
            ))
        })
    }
}

fn row_dict<'py>(py: Python<'py>, cut: &CutRow) -> PyResult<Bound<'py, PyDict>> {
    let (row, dict) = (cut.row, PyDict::new(py));
    let mask = row.teacher_attention_mask().map(|mask| cut.kept(mask).concat().into_pyarray(py));
    let named = PyDict::new(py);
    for (list, name) in SPANS.iter().filter(|(list, _)| !matches!(list, List::Supervised | List::DropGroups))
    {
        named.set_item(name, spans(py, cut.spans(*list))?)?;
    }
    dict.set_item("ids", cut.kept(row.ids()).concat().into_pyarray(py))?;
    dict.set_item("response_start", cut.response().start)?;
    dict.set_item("response_length", cut.response().len())?;
    dict.set_item("supervised", spans(py, cut.spans(List::Supervised))?)?;
    dict.set_item("spans", named)?;
    dict.set_item("drop_groups", spans(py, cut.spans(List::DropGroups))?)?;
    dict.set_item("teacher_prefix_ids", PyArray1::from_slice(py, row.list(List::TeacherPrefixIds)))?;
    dict.set_item("tool_should_be_used", row.tool_should_be_used())?;
    dict.set_item("required_fields_present", row.required_fields_present())?;
    dict.set_item("teacher_attention_mask", mask)?;
    dict.set_item("teacher_length", row.teacher_length())?;
    dict.set_item("validated_arguments", row.validated_arguments())?;
    dict.set_item("source", row.source())?;
    dict.set_item("line", row.line())?;
    dict.set_item("finish_reason", row.finish_reason())?;
    dict.set_item("tools", row.tools())?;
    dict.set_item("metadata", row.metadata())?;
    dict.set_item("prompt_lossy", row.prompt_lossy())?;
    dict.set_item("call_valid", row.call_valid())?;
    Ok(dict)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TokenStore>()?;
    module.add_class::<BuildReport>()
}
