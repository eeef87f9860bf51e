//! `kdfast._rust`'s validation of tool calls against the tools' schemas.

use std::collections::HashSet;
use std::sync::Arc;

use kdfast_core::error::Issue;
use kdfast_core::tool_call::{Formats, Reading};
use kdfast_core::{schema, tool_call};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMapping, PyString};

use crate::boundary::{enter, enter_if_long, issue_dicts};
use crate::reading::reading;
use crate::tool_call::ToolCall;

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

    #[getter]
    fn notes(&self) -> Vec<String> {
        self.core.notes().to_vec()
    }

    fn is_valid(&self, py: Python<'_>, call: &Bound<'_, PyAny>) -> PyResult<bool> {
        let input = Input::new(call)?;
        enter_if_long(py, input.bytes(), || Ok(input.is_valid(&self.core)))
    }

    /// One bool a call or text.
    fn is_valid_batch(&self, py: Python<'_>, calls: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<bool>> {
        let inputs = Input::all(&calls)?;
        enter(py, || Ok(inputs.iter().map(|input| input.is_valid(&self.core)).collect()))
    }

    fn issues<'py>(&self, py: Python<'py>, call: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        issue_dicts(py, &self.found(py, call)?)
    }

    /// The issues of each call or text.
    fn validate_batch<'py>(
        &self,
        py: Python<'py>,
        calls: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        let inputs = Input::all(&calls)?;
        let found: Vec<_> = enter(py, || Ok(inputs.iter().map(|input| input.issues(&self.core)).collect()))?;
        found.iter().map(|issues: &Vec<Issue>| issue_dicts(py, issues)).collect()
    }

    fn validate(&self, py: Python<'_>, call: &Bound<'_, PyAny>) -> PyResult<()> {
        let issues = self.found(py, call)?;
        enter(py, || if issues.is_empty() { Ok(()) } else { Err(schema::tool_call_error(issues)) })
    }
}

impl ToolSchema {
    fn found(&self, py: Python<'_>, subject: &Bound<'_, PyAny>) -> PyResult<Vec<Issue>> {
        let input = Input::new(subject)?;
        enter_if_long(py, input.bytes(), || Ok(input.issues(&self.core)))
    }
}

/// What can be validated: a call, or a text with calls in it.
enum Input<'a> {
    Call(&'a tool_call::ToolCall),
    Text(&'a str),
}

impl<'a> Input<'a> {
    fn new(subject: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = subject.cast::<PyString>() {
            return Ok(Self::Text(text.to_str()?));
        }
        if let Ok(call) = subject.cast::<ToolCall>() {
            return Ok(Self::Call(&call.get().core));
        }
        let found = subject.get_type();
        Err(PyTypeError::new_err(format!("call must be a ToolCall or a text, got {found}")))
    }

    fn all(subjects: &'a [Bound<'_, PyAny>]) -> PyResult<Vec<Self>> {
        subjects.iter().map(Self::new).collect()
    }
}

impl Input<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Call(call) => call.arguments.len(),
            Self::Text(text) => text.len(),
        }
    }

    fn is_valid(&self, schema: &schema::ToolSchema) -> bool {
        match self {
            Self::Call(call) => schema.is_valid(&call.name, &call.arguments),
            Self::Text(text) => tool_call::is_valid_text(text, Some(schema), all(schema)),
        }
    }

    fn issues(&self, schema: &schema::ToolSchema) -> Vec<Issue> {
        match self {
            Self::Call(call) => schema.issues(&call.name, &call.arguments),
            Self::Text(text) => tool_call::text_issues(text, schema, all(schema)),
        }
    }
}

#[pyfunction]
fn modern_parameters(py: Python<'_>, parameters: &str) -> PyResult<String> {
    enter_if_long(py, parameters.len(), || schema::modern_parameters(parameters))
}

/// Calls of every format.
fn all(tools: &schema::ToolSchema) -> Reading<'_> {
    Reading { tools: Some(tools), ..Reading::new(Formats::ALL) }
}

#[pyfunction]
#[pyo3(signature = (text, schema = None, formats = None, *, thinking = "closed"))]
fn is_valid_tool_json(
    py: Python<'_>,
    text: &str,
    schema: Option<&Bound<'_, PyAny>>,
    formats: Option<Vec<String>>,
    thinking: &str,
) -> PyResult<bool> {
    let compiled = schema.map(compile).transpose()?;
    let reading = reading(formats, thinking, compiled.as_deref())?;
    enter_if_long(py, text.len(), || Ok(tool_call::is_valid_text(text, compiled.as_deref(), reading)))
}

/// One bool a text; `schemas` has one entry for each.
#[pyfunction]
#[pyo3(signature = (texts, schemas, formats = None, *, thinking = "closed", threads = 1))]
fn is_valid_tool_json_each(
    py: Python<'_>,
    texts: Vec<Bound<'_, PyString>>,
    schemas: Vec<Option<Bound<'_, PyAny>>>,
    formats: Option<Vec<String>>,
    thinking: &str,
    threads: usize,
) -> PyResult<Vec<bool>> {
    let schemas = compiled_each("schemas", &schemas, "texts", texts.len())?;
    let reading = reading(formats, thinking, None)?;
    let texts: Vec<&str> = texts.iter().map(|text| text.to_str()).collect::<PyResult<_>>()?;
    enter(py, || {
        let schemas = schemas.iter().map(|schema| schema.as_ref().map(Compiled::schema));
        let pairs: Vec<_> = texts.into_iter().zip(schemas).collect();
        tool_call::are_valid_texts(&pairs, reading, threads)
    })
}

#[pyfunction]
#[pyo3(signature = (prefix, schema = None, formats = None, *, thinking = "closed"))]
fn looks_like_tool_json(
    py: Python<'_>,
    prefix: &str,
    schema: Option<&Bound<'_, PyAny>>,
    formats: Option<Vec<String>>,
    thinking: &str,
) -> PyResult<bool> {
    let compiled = schema.map(compile).transpose()?;
    let reading = reading(formats, thinking, compiled.as_deref())?;
    let valid = |call: &tool_call::ToolCall| {
        compiled.as_ref().is_none_or(|schema| schema.is_valid(&call.name, &call.arguments))
    };
    enter_if_long(py, prefix.len(), || Ok(tool_call::could_become(prefix, reading, valid)))
}

#[pyfunction]
#[pyo3(signature = (text, schema, formats, *, thinking = "closed"))]
fn required_fields_present(
    py: Python<'_>,
    text: &str,
    schema: &Bound<'_, PyAny>,
    formats: Vec<String>,
    thinking: &str,
) -> PyResult<bool> {
    let compiled = compile(schema)?;
    let reading = reading(Some(formats), thinking, Some(&compiled))?;
    enter(py, || Ok(tool_call::required_present_in(text, Some(&compiled), reading)))
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

    fn required_present(&self, schema: Option<&schema::ToolSchema>, reading: Reading<'_>) -> bool {
        match self {
            Self::Text(text) => {
                tool_call::required_present_in(text, schema, Reading { tools: schema, ..reading })
            }
            Self::Found(call) => {
                schema.is_none_or(|schema| schema.required_present(&call.name, &call.arguments))
            }
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
#[pyo3(signature = (answers, tools, formats, *, thinking = "closed"))]
fn required_fields_present_each(
    py: Python<'_>,
    answers: Vec<Bound<'_, PyAny>>,
    tools: Vec<Option<Bound<'_, PyAny>>>,
    formats: Vec<String>,
    thinking: &str,
) -> PyResult<Vec<bool>> {
    let reading = reading(Some(formats), thinking, None)?;
    let schemas = compiled_each("tools", &tools, "answers", answers.len())?;
    let answers: Vec<_> = answers.iter().map(Answer::new).collect::<PyResult<_>>()?;
    enter(py, || {
        let pairs = answers.iter().zip(&schemas);
        Ok(pairs
            .map(|(answer, schema)| answer.required_present(schema.as_ref().map(Compiled::schema), reading))
            .collect())
    })
}

/// A schema that Python holds, or one that was compiled for this call.
enum Compiled<'a> {
    Held(&'a schema::ToolSchema),
    Made(Arc<schema::ToolSchema>),
}

impl<'a> Compiled<'a> {
    fn new(tools: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        match tools.cast::<ToolSchema>() {
            Ok(held) => Ok(Self::Held(&held.get().core)),
            Err(_) => compile(tools).map(Self::Made),
        }
    }

    fn schema(&self) -> &schema::ToolSchema {
        match self {
            Self::Held(schema) => schema,
            Self::Made(schema) => schema,
        }
    }
}

/// The compiled schema of each entry of `given`. An error names the argument: `name`, which must have one entry for
/// each of the `count` entries of `others`.
fn compiled_each<'a>(
    name: &str,
    given: &'a [Option<Bound<'_, PyAny>>],
    others: &str,
    count: usize,
) -> PyResult<Vec<Option<Compiled<'a>>>> {
    if given.len() != count {
        let found = given.len();
        let message = format!("{name} must have one entry for each of the {count} {others}, got {found}");
        return Err(PyValueError::new_err(message));
    }
    given.iter().map(|tools| tools.as_ref().map(Compiled::new).transpose()).collect()
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
    module.add_function(wrap_pyfunction!(modern_parameters, module)?)?;
    module.add_function(wrap_pyfunction!(is_valid_tool_json, module)?)?;
    module.add_function(wrap_pyfunction!(is_valid_tool_json_each, module)?)?;
    module.add_function(wrap_pyfunction!(looks_like_tool_json, module)?)?;
    module.add_function(wrap_pyfunction!(required_fields_present, module)?)?;
    module.add_function(wrap_pyfunction!(required_fields_present_each, module)?)
}
