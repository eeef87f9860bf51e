//! How a text is to be read, as Python says it.

use kdfast_core::schema::ToolSchema;
use kdfast_core::tool_call::{Format, Formats, Reading, Thinking};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The formats called `names`; all when none are given.
pub fn formats_named(names: Option<Vec<String>>) -> PyResult<Formats> {
    let Some(names) = names else { return Ok(Formats::ALL) };
    Formats::named(names.iter().map(String::as_str)).map_err(|name| {
        let known = Format::names().collect::<Vec<_>>().join(", ");
        PyValueError::new_err(format!("formats must be among {known}, got {name:?}"))
    })
}

pub fn thinking_named(name: &str) -> PyResult<Thinking> {
    Thinking::named(name)
        .ok_or_else(|| PyValueError::new_err(format!("thinking must be 'open' or 'closed', got {name:?}")))
}

/// How a text is to be read.
pub fn reading<'t>(
    formats: Option<Vec<String>>,
    thinking: &str,
    tools: Option<&'t ToolSchema>,
) -> PyResult<Reading<'t>> {
    Ok(Reading { formats: formats_named(formats)?, thinking: thinking_named(thinking)?, tools })
}
