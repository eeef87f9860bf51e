//! `kdfast._rust`: the Python face of `kdfast-core`. Conversions only; all work happens behind [`boundary::enter`].

mod boundary;

use pyo3::prelude::*;

#[pymodule]
fn _rust(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    // One line a module: `tokenize::register(module)?;`
    Ok(())
}
