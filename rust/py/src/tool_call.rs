//! `kdfast._rust`'s tool calls: finding them, and validating them against the tools' schemas.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use kdfast_core::error::Issue;
use kdfast_core::{schema, tool_call};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyMapping, PyString};

use crate::boundary::{enter, issue_dicts};

type Span = (usize, usize);

/// A call found in a text. Spans count characters.
#[pyclass(frozen, module = "kdfast._rust")]
pub struct ToolCall {
    core: tool_call::ToolCall,
    /// The core's ranges in characters: span, body, name, arguments, keys, values.
    spans: Spans,
    arguments: PyOnceLock<Py<PyAny>>,
}

struct Spans {
    span: Span,
    body: Span,
    name: Span,
    arguments: Span,
    keys: Vec<Span>,
    values: Vec<Span>,
}

#[pymethods]
impl ToolCall {
    #[getter]
    fn name(&self) -> &str {
        &self.core.name
    }

    /// Parsed when first asked for.
    #[getter]
    fn arguments(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parsed = self.arguments.get_or_try_init(py, || loads(py, &self.core.arguments))?;
        Ok(parsed.clone_ref(py))
    }

    #[getter]
    fn span(&self) -> Span {
        self.spans.span
    }

    #[getter]
    fn body(&self) -> Span {
        self.spans.body
    }

    #[getter]
    fn name_span(&self) -> Span {
        self.spans.name
    }

    #[getter]
    fn arguments_span(&self) -> Span {
        self.spans.arguments
    }

    #[getter]
    fn key_spans(&self) -> Vec<Span> {
        self.spans.keys.clone()
    }

    #[getter]
    fn value_spans(&self) -> Vec<Span> {
        self.spans.values.clone()
    }

    fn __repr__(&self) -> String {
        let (start, end) = self.spans.span;
        format!(
            "ToolCall(name={:?}, arguments={}, span=({start}, {end}))",
            self.core.name, self.core.arguments
        )
    }
}

/// The compiled argument schemas of a set of tools.
#[pyclass(frozen, module = "kdfast._rust")]
pub struct ToolSchema {
    core: Arc<schema::ToolSchema>,
}

#[pymethods]
impl ToolSchema {
    #[new]
    fn new(tools: &Bound<'_, PyAny>) -> PyResult<Self> {
        compile(tools).map(|core| Self { core })
    }

    #[getter]
    fn names(&self) -> Vec<String> {
        self.core.names().to_vec()
    }

    fn is_valid(&self, py: Python<'_>, call: Subject<'_>) -> PyResult<bool> {
        Ok(self.found(py, &call)?.is_empty())
    }

    fn issues<'py>(&self, py: Python<'py>, call: Subject<'py>) -> PyResult<Bound<'py, PyList>> {
        issue_dicts(py, &self.found(py, &call)?)
    }

    fn validate(&self, py: Python<'_>, call: Subject<'_>) -> PyResult<()> {
        let issues = self.found(py, &call)?;
        enter(py, || if issues.is_empty() { Ok(()) } else { Err(schema::tool_call_error(issues)) })
    }
}

impl ToolSchema {
    fn found(&self, py: Python<'_>, subject: &Subject<'_>) -> PyResult<Vec<Issue>> {
        match subject {
            Subject::Call(call) => {
                let call = &call.get().core;
                enter(py, || Ok(self.core.issues(call)))
            }
            Subject::Text(text) => {
                let text = text.to_str()?;
                enter(py, || Ok(schema::text_issues(text, &self.core)))
            }
        }
    }
}

/// What can be validated: a call, or a text with calls in it.
#[derive(FromPyObject)]
enum Subject<'py> {
    Call(Bound<'py, ToolCall>),
    Text(Bound<'py, PyString>),
}

#[pyfunction]
fn find_tool_calls(py: Python<'_>, text: &str) -> PyResult<Vec<ToolCall>> {
    enter(py, || {
        let calls = tool_call::find_tool_calls(text);
        let characters = Characters::new(text, &calls);
        Ok(calls.into_iter().map(|core| characters.convert(core)).collect())
    })
}

#[pyfunction]
#[pyo3(signature = (text, schema = None))]
fn is_valid_tool_json(py: Python<'_>, text: &str, schema: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    let compiled = schema.map(compile).transpose()?;
    enter(py, || Ok(schema::is_valid_text(text, compiled.as_deref())))
}

#[pyfunction]
fn required_fields_present(py: Python<'_>, text: &str, schema: &Bound<'_, PyAny>) -> PyResult<bool> {
    let compiled = compile(schema)?;
    enter(py, || Ok(schema::required_present_in(text, Some(&compiled))))
}

/// An answer: its text, a call that was found in it, or one that was parsed elsewhere.
enum Answer<'a> {
    Text(&'a str),
    Found(&'a tool_call::ToolCall),
    Parsed(Option<ParsedCall>),
}

struct ParsedCall {
    name: String,
    arguments: HashSet<String>,
}

impl<'a> Answer<'a> {
    fn new(answer: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = answer.cast::<PyString>() {
            return Ok(Self::Text(text.to_str()?));
        }
        if let Ok(call) = answer.cast::<ToolCall>() {
            return Ok(Self::Found(&call.get().core));
        }
        if let Ok(call) = answer.cast::<PyMapping>() {
            return Ok(Self::Parsed(ParsedCall::new(call)?));
        }
        let found = answer.get_type();
        Err(PyTypeError::new_err(format!(
            "texts must hold a text, a ToolCall or an object with name and arguments each, got {found}"
        )))
    }

    fn required_present(&self, schema: Option<&schema::ToolSchema>) -> bool {
        match self {
            Self::Text(text) => schema::required_present_in(text, schema),
            Self::Found(call) => schema.is_none_or(|schema| schema.required_present(call)),
            Self::Parsed(Some(call)) => {
                schema.is_none_or(|schema| schema.requires_only(&call.name, &call.arguments))
            }
            Self::Parsed(None) => false,
        }
    }
}

impl ParsedCall {
    /// `None` without a name or an arguments object.
    fn new(call: &Bound<'_, PyMapping>) -> PyResult<Option<Self>> {
        if !call.contains("name")? || !call.contains("arguments")? {
            return Ok(None);
        }
        let (name, arguments) = (call.get_item("name")?, call.get_item("arguments")?);
        let (Ok(name), Ok(arguments)) = (name.extract::<String>(), arguments.cast::<PyMapping>()) else {
            return Ok(None);
        };
        // A key that is no text is no argument's name.
        let names = arguments.keys()?.iter().filter_map(|key| key.extract::<String>().ok()).collect();
        Ok((!name.is_empty()).then_some(Self { name, arguments: names }))
    }
}

/// One bool an answer; `tools` has one entry for each.
#[pyfunction]
fn required_fields_present_each(
    py: Python<'_>,
    answers: Vec<Bound<'_, PyAny>>,
    tools: Vec<Option<Bound<'_, PyAny>>>,
) -> PyResult<Vec<bool>> {
    if answers.len() != tools.len() {
        return Err(PyValueError::new_err(format!(
            "tools must have one entry for each of the {} answers, got {}",
            answers.len(),
            tools.len()
        )));
    }
    let schemas: Vec<_> =
        tools.iter().map(|tools| tools.as_ref().map(compile).transpose()).collect::<PyResult<_>>()?;
    let answers: Vec<_> = answers.iter().map(Answer::new).collect::<PyResult<_>>()?;
    enter(py, || {
        let pairs = answers.iter().zip(&schemas);
        Ok(pairs.map(|(answer, schema)| answer.required_present(schema.as_deref())).collect())
    })
}

/// A schema from a `ToolSchema`, tool definitions, or their JSON text.
fn compile(tools: &Bound<'_, PyAny>) -> PyResult<Arc<schema::ToolSchema>> {
    let py = tools.py();
    if let Ok(schema) = tools.cast::<ToolSchema>() {
        return Ok(Arc::clone(&schema.get().core));
    }
    let json = if tools.is_instance_of::<PyList>() {
        py.import("json")?.call_method1("dumps", (tools,))?
    } else {
        tools.clone()
    };
    let Ok(json) = json.cast::<PyString>() else {
        let found = tools.get_type();
        let message =
            format!("tools must be a ToolSchema, a list of tool definitions or its JSON text, got {found}");
        return Err(PyTypeError::new_err(message));
    };
    let json = json.to_str()?;
    enter(py, || schema::ToolSchema::cached(json))
}

/// Parsed by Python's own parser: its integers have no bounds.
pub fn loads(py: Python<'_>, json: &str) -> PyResult<Py<PyAny>> {
    Ok(py.import("json")?.call_method1("loads", (json,))?.unbind())
}

/// Byte offsets to character offsets, for the offsets of some calls.
struct Characters {
    /// Byte and character offset, ascending; `None` where both are equal (ASCII).
    known: Option<Vec<(usize, usize)>>,
}

impl Characters {
    fn new(text: &str, calls: &[tool_call::ToolCall]) -> Self {
        if text.is_ascii() {
            return Self { known: None };
        }
        let mut bytes: Vec<usize> = calls.iter().flat_map(offsets).collect();
        bytes.sort_unstable();
        bytes.dedup();
        let (mut at, mut characters) = (0, 0);
        let known = bytes.into_iter().map(|byte| {
            characters += text[at..byte].chars().count();
            at = byte;
            (byte, characters)
        });
        Self { known: Some(known.collect()) }
    }

    fn at(&self, byte: usize) -> usize {
        match &self.known {
            None => byte,
            Some(known) => known[known.partition_point(|(known, _)| *known < byte)].1,
        }
    }

    fn span(&self, range: &Range<usize>) -> Span {
        (self.at(range.start), self.at(range.end))
    }

    fn convert(&self, core: tool_call::ToolCall) -> ToolCall {
        let many = |ranges: &[Range<usize>]| ranges.iter().map(|range| self.span(range)).collect();
        let spans = Spans {
            span: self.span(&core.span),
            body: self.span(&core.body),
            name: self.span(&core.name_span),
            arguments: self.span(&core.arguments_span),
            keys: many(&core.key_spans),
            values: many(&core.value_spans),
        };
        ToolCall { core, spans, arguments: PyOnceLock::new() }
    }
}

fn offsets(call: &tool_call::ToolCall) -> impl Iterator<Item = usize> {
    let single = [&call.span, &call.body, &call.name_span, &call.arguments_span];
    let ranges = single.into_iter().chain(&call.key_spans).chain(&call.value_spans);
    ranges.flat_map(|range| [range.start, range.end])
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ToolCall>()?;
    module.add_class::<ToolSchema>()?;
    module.add_function(wrap_pyfunction!(find_tool_calls, module)?)?;
    module.add_function(wrap_pyfunction!(is_valid_tool_json, module)?)?;
    module.add_function(wrap_pyfunction!(required_fields_present, module)?)?;
    module.add_function(wrap_pyfunction!(required_fields_present_each, module)?)
}
