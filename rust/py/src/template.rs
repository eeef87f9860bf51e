//! `kdfast._rust.ChatTemplate`.

use kdfast_core::template;
use pyo3::prelude::*;

use crate::boundary::enter;

/// A compiled chat template.
#[pyclass(frozen, module = "kdfast._rust")]
pub struct ChatTemplate {
    pub core: template::ChatTemplate,
}

#[pymethods]
impl ChatTemplate {
    #[new]
    #[pyo3(signature = (source, *, bos_token = "", eos_token = ""))]
    fn new(py: Python<'_>, source: &str, bos_token: &str, eos_token: &str) -> PyResult<Self> {
        enter(py, || template::ChatTemplate::new(source, bos_token, eos_token)).map(|core| Self { core })
    }

    #[pyo3(signature = (messages, tools = None, add_generation_prompt = false))]
    fn render(
        &self,
        py: Python<'_>,
        messages: &str,
        tools: Option<&str>,
        add_generation_prompt: bool,
    ) -> PyResult<String> {
        enter(py, || self.core.render(messages, tools, add_generation_prompt))
    }

    #[getter]
    fn source(&self) -> &str {
        self.core.source()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ChatTemplate>()
}
