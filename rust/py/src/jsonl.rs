//! `kdfast._rust.read_jsonl`.

use std::collections::HashMap;
use std::path::PathBuf;

use kdfast_core::fields::{self, Lines, Record};
use kdfast_core::jsonl::{self, OnError, Quarantine, ReadOptions, Rejected};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::boundary::enter;
use crate::tool_call::loads;

#[pyfunction]
#[pyo3(signature = (path, *, lines, on_error, max_rejected_fraction, max_line_bytes, allow_reasoning, threads))]
#[allow(clippy::too_many_arguments)] // a reader's settings, each with its name
fn read_jsonl<'py>(
    py: Python<'py>,
    path: PathBuf,
    lines: &str,
    on_error: &str,
    max_rejected_fraction: f64,
    max_line_bytes: usize,
    allow_reasoning: bool,
    threads: usize,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let on_error = on_error_named(on_error)?;
    let lines = lines_named(lines)?;
    let options =
        ReadOptions { on_error, max_rejected_fraction, max_line_bytes, lines, allow_reasoning, threads };
    let (records, rejected) = enter(py, || {
        let mut quarantine = Quarantine::new(&path, on_error, max_rejected_fraction);
        let mut records = Vec::new();
        let summary = jsonl::read(&path, &options, &mut |lines| {
            for line in lines {
                match line {
                    Ok(record) => records.push(record),
                    Err(rejected) => quarantine.reject(rejected)?,
                }
            }
            Ok(())
        })?;
        let rejected = quarantine.finish(summary.records + summary.rejected)?;
        Ok((records, rejected))
    })?;
    let good = PyList::empty(py);
    let mut tools = HashMap::new();
    for record in &records {
        good.append(record_dict(py, record, &mut tools)?)?;
    }
    let bad = PyList::empty(py);
    for line in &rejected {
        bad.append(rejected_dict(py, line)?)?;
    }
    Ok((good, bad))
}

fn lines_named(name: &str) -> PyResult<Lines> {
    match name {
        "records" => Ok(Lines::Records),
        "prompts" => Ok(Lines::Prompts),
        _ => Err(PyValueError::new_err(format!("lines must be 'records' or 'prompts', got '{name}'"))),
    }
}

/// The policy for bad lines by its name in configs.
pub fn on_error_named(name: &str) -> PyResult<OnError> {
    match name {
        "raise" => Ok(OnError::Raise),
        "quarantine" => Ok(OnError::Quarantine),
        _ => Err(PyValueError::new_err(format!("on_error must be 'raise' or 'quarantine', got '{name}'"))),
    }
}

/// The fields that are present, JSON as Python objects. Records with the same tools share one object: a device's tools
/// are in every record, and parsed they take more memory than all the rest.
fn record_dict<'py, 'text>(
    py: Python<'py>,
    record: &'text Record,
    shared_tools: &mut HashMap<&'text str, Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let texts = [
        ("prompt", &record.prompt),
        ("teacher_text", &record.teacher_text),
        ("truth_text", &record.truth_text),
        ("finish_reason", &record.finish_reason),
    ];
    let json = [
        ("messages", &record.messages),
        ("teacher_message", &record.teacher_message),
        ("truth_message", &record.truth_message),
        ("validated_arguments", &record.validated_arguments),
    ];
    dict.set_item("line", record.line)?;
    for (name, text) in texts {
        set(&dict, name, text.as_ref())?;
    }
    for (name, text) in json {
        set(&dict, name, text.as_ref().map(|text| loads(py, text)).transpose()?)?;
    }
    if let Some(text) = &record.tools {
        let tools = match shared_tools.get(text.as_str()) {
            Some(tools) => tools.clone_ref(py),
            None => loads(py, text)?,
        };
        dict.set_item("tools", &tools)?;
        shared_tools.insert(text, tools);
    }
    set(&dict, "tool_should_be_used", record.tool_should_be_used)?;
    set(&dict, "teacher_prefix_ids", record.teacher_prefix_ids.as_ref())?;
    set(&dict, "required_fields_present", record.required_fields_present)?;
    // As numbers: a `Vec<u8>` would become bytes.
    let mask = record.teacher_attention_mask.as_ref();
    set(
        &dict,
        "teacher_attention_mask",
        mask.map(|mask| mask.iter().map(|bit| u32::from(*bit)).collect::<Vec<_>>()),
    )?;
    if let Some(topk) = &record.teacher_topk {
        let lists = PyDict::new(py);
        lists.set_item("ids", &topk.ids)?;
        lists.set_item("logprobs", &topk.logprobs)?;
        dict.set_item("teacher_topk", lists)?;
    }
    dict.set_item("metadata", loads(py, &record.metadata)?)?;
    Ok(dict)
}

fn set<'py>(dict: &Bound<'py, PyDict>, name: &str, value: Option<impl IntoPyObject<'py>>) -> PyResult<()> {
    match value {
        Some(value) => dict.set_item(name, value),
        None => Ok(()),
    }
}

fn rejected_dict<'py>(py: Python<'py>, line: &Rejected) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("line", line.line)?;
    dict.set_item("column", line.column)?;
    dict.set_item("reason", &line.reason)?;
    dict.set_item("raw", PyBytes::new(py, &line.raw))?;
    Ok(dict)
}

/// The keys that a record or a header may have.
#[pyfunction]
fn record_keys() -> Vec<&'static str> {
    fields::known_keys()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_jsonl, module)?)?;
    module.add_function(wrap_pyfunction!(record_keys, module)?)
}
