//! `kdfast._rust`'s validation of tool calls against the tools' schemas.

use std::collections::HashSet;
use std::sync::Arc;

use kdfast_core::error::Issue;
use kdfast_core::tool_call::Formats;
use kdfast_core::{schema, tool_call};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMapping, PyString};

use crate::boundary::{enter, issue_dicts};
use crate::tool_call::{ToolCall, formats_named};

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
        let input = call.input()?;
        enter(py, || Ok(input.is_valid(&self.core)))
    }

    /// One bool a call or text.
    fn is_valid_batch(&self, py: Python<'_>, calls: Vec<Subject<'_>>) -> PyResult<Vec<bool>> {
        let inputs: Vec<_> = calls.iter().map(Subject::input).collect::<PyResult<_>>()?;
        enter(py, || Ok(inputs.iter().map(|input| input.is_valid(&self.core)).collect()))
    }

    fn issues<'py>(&self, py: Python<'py>, call: Subject<'py>) -> PyResult<Bound<'py, PyList>> {
        issue_dicts(py, &self.found(py, &call)?)
    }

    /// The issues of each call or text.
    fn validate_batch<'py>(
        &self,
        py: Python<'py>,
        calls: Vec<Subject<'py>>,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        let inputs: Vec<_> = calls.iter().map(Subject::input).collect::<PyResult<_>>()?;
        let found: Vec<_> = enter(py, || Ok(inputs.iter().map(|input| input.issues(&self.core)).collect()))?;
        found.iter().map(|issues: &Vec<Issue>| issue_dicts(py, issues)).collect()
    }

    fn validate(&self, py: Python<'_>, call: Subject<'_>) -> PyResult<()> {
        let issues = self.found(py, &call)?;
        enter(py, || if issues.is_empty() { Ok(()) } else { Err(schema::tool_call_error(issues)) })
    }
}

impl ToolSchema {
    fn found(&self, py: Python<'_>, subject: &Subject<'_>) -> PyResult<Vec<Issue>> {
        let input = subject.input()?;
        enter(py, || Ok(input.issues(&self.core)))
    }
}

/// What can be validated: a call, or a text with calls in it.
#[derive(FromPyObject)]
enum Subject<'py> {
    Call(Bound<'py, ToolCall>),
    Text(Bound<'py, PyString>),
}

/// A [`Subject`] as the core takes it.
enum Input<'a> {
    Call(&'a tool_call::ToolCall),
    Text(&'a str),
}

impl Subject<'_> {
    fn input(&self) -> PyResult<Input<'_>> {
        Ok(match self {
            Self::Call(call) => Input::Call(&call.get().core),
            Self::Text(text) => Input::Text(text.to_str()?),
        })
    }
}

impl Input<'_> {
    fn is_valid(&self, schema: &schema::ToolSchema) -> bool {
        match self {
            Self::Call(call) => schema.is_valid(call),
            Self::Text(text) => schema::is_valid_text(text, Some(schema), Formats::ALL),
        }
    }

    fn issues(&self, schema: &schema::ToolSchema) -> Vec<Issue> {
        match self {
            Self::Call(call) => schema.issues(call),
            Self::Text(text) => schema::text_issues(text, schema, Formats::ALL),
        }
    }
}

#[pyfunction]
#[pyo3(signature = (text, schema = None, formats = None))]
fn is_valid_tool_json(
    py: Python<'_>,
    text: &str,
    schema: Option<&Bound<'_, PyAny>>,
    formats: Option<Vec<String>>,
) -> PyResult<bool> {
    let (compiled, formats) = (schema.map(compile).transpose()?, formats_named(formats)?);
    enter(py, || Ok(schema::is_valid_text(text, compiled.as_deref(), formats)))
}

#[pyfunction]
#[pyo3(signature = (prefix, schema = None, formats = None))]
fn looks_like_tool_json(
    py: Python<'_>,
    prefix: &str,
    schema: Option<&Bound<'_, PyAny>>,
    formats: Option<Vec<String>>,
) -> PyResult<bool> {
    let (compiled, formats) = (schema.map(compile).transpose()?, formats_named(formats)?);
    let valid = |call: &tool_call::ToolCall| compiled.as_ref().is_none_or(|schema| schema.is_valid(call));
    enter(py, || Ok(tool_call::could_become(prefix, formats, valid)))
}

#[pyfunction]
fn required_fields_present(py: Python<'_>, text: &str, schema: &Bound<'_, PyAny>) -> PyResult<bool> {
    let compiled = compile(schema)?;
    enter(py, || Ok(schema::required_present_in(text, Some(&compiled), Formats::HERMES)))
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
            Self::Text(text) => schema::required_present_in(text, schema, Formats::HERMES),
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
pub fn compile(tools: &Bound<'_, PyAny>) -> PyResult<Arc<schema::ToolSchema>> {
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

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ToolSchema>()?;
    module.add_function(wrap_pyfunction!(is_valid_tool_json, module)?)?;
    module.add_function(wrap_pyfunction!(looks_like_tool_json, module)?)?;
    module.add_function(wrap_pyfunction!(required_fields_present, module)?)?;
    module.add_function(wrap_pyfunction!(required_fields_present_each, module)?)
}
