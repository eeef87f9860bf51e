//! `ToolCall`.

use std::ops::Range;

use kdfast_core::tool_call;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

type Span = (usize, usize);

/// A call found in a text. Spans count characters; those of a stream's calls count bytes.
#[pyclass(frozen, module = "kdfast._rust")]
pub struct ToolCall {
    pub core: tool_call::ToolCall,
    /// The core's ranges in characters: span, body, name, arguments, keys, values.
    spans: Spans,
    arguments: PyOnceLock<Py<PyAny>>,
}

struct Spans {
    span: Span,
    body: Span,
    name: Span,
    arguments: Span,
    keys: Vec<Span>,
    values: Vec<Span>,
}

#[pymethods]
impl ToolCall {
    #[getter]
    fn name(&self) -> &str {
        &self.core.name
    }

    /// Parsed when first asked for.
    #[getter]
    fn arguments(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parsed = self.arguments.get_or_try_init(py, || loads(py, &self.core.arguments))?;
        Ok(parsed.clone_ref(py))
    }

    /// The format that it is written in.
    #[getter]
    fn format(&self) -> &'static str {
        self.core.format.name()
    }

    /// Its whole frame is well-formed.
    #[getter]
    fn closed(&self) -> bool {
        self.core.closed
    }

    #[getter]
    fn span(&self) -> Span {
        self.spans.span
    }

    #[getter]
    fn body(&self) -> Span {
        self.spans.body
    }

    #[getter]
    fn name_span(&self) -> Span {
        self.spans.name
    }

    #[getter]
    fn arguments_span(&self) -> Span {
        self.spans.arguments
    }

    #[getter]
    fn key_spans(&self) -> Vec<Span> {
        self.spans.keys.clone()
    }

    #[getter]
    fn value_spans(&self) -> Vec<Span> {
        self.spans.values.clone()
    }

    fn __repr__(&self) -> String {
        let (start, end) = self.spans.span;
        format!(
            "ToolCall(format={:?}, name={:?}, arguments={}, span=({start}, {end}))",
            self.core.format.name(),
            self.core.name,
            self.core.arguments
        )
    }
}

/// Parsed by Python's own parser: its integers have no bounds.
pub fn loads(py: Python<'_>, json: &str) -> PyResult<Py<PyAny>> {
    Ok(py.import("json")?.call_method1("loads", (json,))?.unbind())
}

/// Byte offsets to character offsets, for the offsets of some calls.
pub struct Characters {
    /// Byte and character offset, ascending; `None` where both are equal (ASCII).
    known: Option<Vec<(usize, usize)>>,
}

impl Characters {
    /// Offsets stay as they are.
    pub const NONE: Self = Self { known: None };

    /// For the offsets `bytes`, in any order.
    pub fn new(text: &str, mut bytes: Vec<usize>) -> Self {
        if text.is_ascii() {
            return Self { known: None };
        }
        bytes.sort_unstable();
        bytes.dedup();
        let (mut at, mut characters) = (0, 0);
        let known = bytes.into_iter().map(|byte| {
            characters += text[at..byte].chars().count();
            at = byte;
            (byte, characters)
        });
        Self { known: Some(known.collect()) }
    }

    pub fn at(&self, byte: usize) -> usize {
        match &self.known {
            None => byte,
            Some(known) => known[known.partition_point(|(known, _)| *known < byte)].1,
        }
    }

    fn span(&self, range: &Range<usize>) -> Span {
        (self.at(range.start), self.at(range.end))
    }

    pub fn convert(&self, core: tool_call::ToolCall) -> ToolCall {
        let many = |ranges: &[Range<usize>]| ranges.iter().map(|range| self.span(range)).collect();
        let spans = Spans {
            span: self.span(&core.span),
            body: self.span(&core.body),
            name: self.span(&core.name_span),
            arguments: self.span(&core.arguments_span),
            keys: many(&core.key_spans),
            values: many(&core.value_spans),
        };
        ToolCall { core, spans, arguments: PyOnceLock::new() }
    }
}

/// Every offset of a call.
pub fn offsets(call: &tool_call::ToolCall) -> impl Iterator<Item = usize> {
    let single = [&call.span, &call.body, &call.name_span, &call.arguments_span];
    let ranges = single.into_iter().chain(&call.key_spans).chain(&call.value_spans);
    ranges.flat_map(|range| [range.start, range.end])
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ToolCall>()
}
