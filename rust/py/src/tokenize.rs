//! `Tokenizer`.

use std::path::PathBuf;
use std::sync::Arc;

use kdfast_core::tokenize;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::boundary::enter;

/// A byte-level BPE tokenizer.
#[pyclass(frozen, module = "kdfast._rust")]
pub struct Tokenizer(pub Arc<tokenize::Tokenizer>);

#[pymethods]
impl Tokenizer {
    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Ok(Self(Arc::new(enter(py, || tokenize::Tokenizer::from_file(&path))?)))
    }

    fn encode(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        enter(py, || self.0.encode(text))
    }

    fn decode(&self, ids: Vec<u32>) -> String {
        self.0.decode(&ids)
    }

    fn token_bytes<'py>(&self, py: Python<'py>, token: u32) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.token_bytes(token))
    }

    fn covers(&self, text: &str, ids: Vec<u32>) -> bool {
        self.0.covers(text, &ids)
    }

    fn special_id(&self, content: &str) -> Option<u32> {
        self.0.special_id(content)
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    #[getter]
    fn fingerprint(&self) -> &str {
        self.0.fingerprint()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tokenizer>()
}
