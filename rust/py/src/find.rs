//! Finding tool calls in texts.

use kdfast_core::tool_call::{self, Format};
use pyo3::prelude::*;

use crate::boundary::enter_if_long;
use crate::reading::reading;
use crate::tool_call::{Characters, ToolCall, offsets};
use crate::tool_schema::compile;

/// The calls that are closed, or with `unclosed` all complete ones.
#[pyfunction]
#[pyo3(signature = (text, formats = None, *, unclosed = false, tools = None, thinking = "closed"))]
fn find_tool_calls(
    py: Python<'_>,
    text: &str,
    formats: Option<Vec<String>>,
    unclosed: bool,
    tools: Option<&Bound<'_, PyAny>>,
    thinking: &str,
) -> PyResult<Vec<ToolCall>> {
    let tools = tools.map(compile).transpose()?;
    let reading = reading(formats, thinking, tools.as_deref())?;
    enter_if_long(py, text.len(), || {
        let mut calls = tool_call::complete_calls(text, reading);
        calls.retain(|call| unclosed || call.closed);
        let characters = Characters::new(text, calls.iter().flat_map(offsets).collect());
        Ok(calls.into_iter().map(|core| characters.convert(core)).collect())
    })
}

/// `(start, reason)` of everything that opens like a call and gives none that counts.
#[pyfunction]
#[pyo3(signature = (text, formats = None, *, tools = None, thinking = "closed"))]
fn find_attempted_calls(
    py: Python<'_>,
    text: &str,
    formats: Option<Vec<String>>,
    tools: Option<&Bound<'_, PyAny>>,
    thinking: &str,
) -> PyResult<Vec<(usize, &'static str)>> {
    let tools = tools.map(compile).transpose()?;
    let reading = reading(formats, thinking, tools.as_deref())?;
    enter_if_long(py, text.len(), || {
        let found = tool_call::find_attempts(text, reading);
        let characters = Characters::new(text, found.iter().map(|attempt| attempt.at).collect());
        Ok(found.iter().map(|attempt| (characters.at(attempt.at), attempt.reason.name())).collect())
    })
}

/// What ends the thinking block that a prompt opens; `None` if it opens none.
#[pyfunction]
fn thinking_closing(prompt: &str) -> Option<&'static str> {
    tool_call::closing_after(prompt)
}

/// The names of all formats.
#[pyfunction]
fn tool_call_formats() -> Vec<&'static str> {
    Format::names().collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(find_tool_calls, module)?)?;
    module.add_function(wrap_pyfunction!(find_attempted_calls, module)?)?;
    module.add_function(wrap_pyfunction!(thinking_closing, module)?)?;
    module.add_function(wrap_pyfunction!(tool_call_formats, module)?)
}
