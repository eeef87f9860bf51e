//! `kdfast._rust`: `kdfast-core` for Python. Conversions only; [`boundary::enter`] does the work.
#![allow(clippy::needless_pass_by_value)] // PyO3 extracts arguments as values

mod arrays;
mod boundary;
mod collate;
mod find;
mod jsonl;
mod reading;
mod teacher_store;
mod template;
mod token_store;
mod tokenize;
mod tool_call;
mod tool_call_stream;
mod tool_schema;

use pyo3::prelude::*;

#[pymodule]
fn _rust(module: &Bound<'_, PyModule>) -> PyResult<()> {
    collate::register(module)?;
    jsonl::register(module)?;
    teacher_store::register(module)?;
    template::register(module)?;
    token_store::register(module)?;
    tokenize::register(module)?;
    find::register(module)?;
    tool_call::register(module)?;
    tool_call_stream::register(module)?;
    tool_schema::register(module)?;
    Ok(())
}
