//! `ToolCallStream`.

use std::sync::Arc;

use kdfast_core::tokenize;
use kdfast_core::tool_call::{self, Mark, Options, State};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::boundary::enter_if_long;
use crate::reading::{formats_named, thinking_named};
use crate::tokenize::Tokenizer;
use crate::tool_call::{Characters, ToolCall};
use crate::tool_schema::compile;

/// A rough mean.
const BYTES_A_TOKEN: usize = 4;

/// Finds calls while a text is written.
#[pyclass(module = "kdfast._rust")]
pub struct ToolCallStream {
    core: tool_call::ToolCallStream,
    tokenizer: Option<Arc<tokenize::Tokenizer>>,
}

#[pymethods]
impl ToolCallStream {
    #[new]
    #[pyo3(signature = (schema = None, formats = None, tokenizer = None, *, tools = None, thinking = "closed", max_call_bytes = 1_048_576))]
    fn new(
        schema: Option<&Bound<'_, PyAny>>,
        formats: Option<Vec<String>>,
        tokenizer: Option<&Tokenizer>,
        tools: Option<&Bound<'_, PyAny>>,
        thinking: &str,
        max_call_bytes: usize,
    ) -> PyResult<Self> {
        let options = Options {
            schema: schema.map(compile).transpose()?,
            tools: tools.map(compile).transpose()?,
            formats: formats_named(formats)?,
            thinking: thinking_named(thinking)?,
            max_call_bytes,
        };
        let tokenizer = tokenizer.map(|tokenizer| Arc::clone(&tokenizer.0));
        Ok(Self { core: tool_call::ToolCallStream::new(options), tokenizer })
    }

    /// True once a valid call is complete.
    fn feed(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<bool> {
        enter_if_long(py, data.len(), || {
            self.core.feed(data);
            Ok(())
        })?;
        Ok(self.core.complete_at().is_some())
    }

    /// True once a valid call is complete.
    fn feed_tokens(&mut self, py: Python<'_>, ids: Vec<u32>) -> PyResult<bool> {
        let tokenizer = known(self.tokenizer.as_deref())?;
        enter_if_long(py, ids.len() * BYTES_A_TOKEN, || {
            self.core.feed_tokens(ids.iter().map(|&id| tokenizer.token_bytes(id)));
            Ok(())
        })?;
        Ok(self.core.complete_at().is_some())
    }

    /// Takes tokens from an iterable until a valid call is complete. Between two tokens the stream is not borrowed: the
    /// iterator may look at it.
    fn feed_until_complete(slf: &Bound<'_, Self>, tokens: &Bound<'_, PyAny>) -> PyResult<bool> {
        let more = tokens.try_iter()?;
        if let Some(complete) = slf.try_borrow()?.decided() {
            return Ok(complete);
        }
        for token in more {
            let mut stream = slf.try_borrow_mut()?;
            stream.take(&token?)?;
            if let Some(complete) = stream.decided() {
                return Ok(complete);
            }
        }
        Ok(false)
    }

    #[getter]
    fn state(&self) -> &'static str {
        self.core.state().name()
    }

    #[getter]
    fn calls(&self) -> Vec<ToolCall> {
        self.core.calls().iter().cloned().map(|call| Characters::NONE.convert(call)).collect()
    }

    /// `(byte, reason)` of everything that opens like a call and gives none that counts, if the text ends here.
    #[getter]
    fn attempts(&self) -> Vec<(usize, &'static str)> {
        self.core.attempts().iter().map(|attempt| (attempt.at, attempt.reason.name())).collect()
    }

    /// How many tokens belong to thinking blocks.
    #[getter]
    fn thinking_tokens(&self) -> usize {
        self.core.thinking_tokens()
    }

    #[getter]
    fn complete_at_byte(&self) -> Option<usize> {
        self.core.complete_at().map(|Mark { byte, .. }| byte)
    }

    #[getter]
    fn complete_at_token(&self) -> Option<usize> {
        self.core.complete_at()?.token
    }

    #[getter]
    fn name_at_byte(&self) -> Option<usize> {
        self.core.name_at().map(|Mark { byte, .. }| byte)
    }

    #[getter]
    fn name_at_token(&self) -> Option<usize> {
        self.core.name_at()?.token
    }

    #[getter]
    fn more_expected(&self) -> bool {
        self.core.more_expected()
    }
}

impl ToolCallStream {
    /// Whether a valid call is complete; `None` while one may still come.
    fn decided(&self) -> Option<bool> {
        if self.core.complete_at().is_some() {
            return Some(true);
        }
        (self.core.state() == State::Impossible).then_some(false)
    }

    /// Takes a token: an id, or its bytes.
    fn take(&mut self, token: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = token.cast::<PyBytes>() {
            self.core.feed_token(bytes.as_bytes());
            return Ok(());
        }
        let id = token.extract().map_err(|error: PyErr| {
            if !error.is_instance_of::<PyTypeError>(token.py()) {
                return error; // a number that no id can be
            }
            let found = token.get_type();
            PyTypeError::new_err(format!("tokens must be ids or bytes, got {found}"))
        })?;
        self.core.feed_token(known(self.tokenizer.as_deref())?.token_bytes(id));
        Ok(())
    }
}

fn known(tokenizer: Option<&tokenize::Tokenizer>) -> PyResult<&tokenize::Tokenizer> {
    tokenizer
        .ok_or_else(|| PyValueError::new_err("tokenizer must be given to the stream to feed it token ids"))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ToolCallStream>()
}
