//! `kdfast._rust`: the Python face of `kdfast-core`. Conversions only; all work happens behind [`boundary::enter`].

mod boundary;
mod jsonl;
mod template;
mod tool_call;

use pyo3::prelude::*;

#[pymodule]
fn _rust(module: &Bound<'_, PyModule>) -> PyResult<()> {
    jsonl::register(module)?;
    template::register(module)?;
    tool_call::register(module)?;
    Ok(())
}
