//! `kdfast._rust.ChatTemplate`.

use std::collections::HashMap;

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
    #[pyo3(signature = (source, *, tool_use = None, tokens = HashMap::new()))]
    fn new(
        py: Python<'_>,
        source: &str,
        tool_use: Option<&str>,
        tokens: HashMap<String, String>,
    ) -> PyResult<Self> {
        // The order of a dict says nothing, and a fingerprint must not depend on it.
        let mut tokens: Vec<_> = tokens.iter().map(|(name, token)| (name.as_str(), token.as_str())).collect();
        tokens.sort_unstable();
        enter(py, || template::ChatTemplate::new(source, tool_use, &tokens)).map(|core| Self { core })
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

    #[getter]
    fn tool_use(&self) -> Option<&str> {
        self.core.tool_use()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ChatTemplate>()
}
