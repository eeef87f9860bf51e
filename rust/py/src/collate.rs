//! `collate`.

use kdfast_core::collate::{self, Batch, Shape};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::shaped;
use crate::boundary::enter;
use crate::teacher_store::TeacherStore;
use crate::token_store::TokenStore;

#[pyfunction]
#[pyo3(name = "collate", signature = (store, rows, length, pad_id, teacher=None, *, threads))]
fn collate_rows<'py>(
    py: Python<'py>,
    store: &TokenStore,
    rows: PyReadonlyArray1<'py, i64>,
    length: usize,
    pad_id: i64,
    teacher: Option<&TeacherStore>,
    threads: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let rows = rows.as_array().to_vec();
    let shape = Shape { length, pad_id, threads };
    let batch = enter(py, || collate::collate(&store.0, &rows, shape, teacher.map(|teacher| &teacher.0)))?;
    to_dict(py, batch)
}

fn to_dict(py: Python<'_>, batch: Batch) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    let grid = [batch.rows, batch.length];
    dict.set_item("input_ids", shaped(py, batch.input_ids, &grid)?)?;
    dict.set_item("attention_mask", shaped(py, batch.attention_mask, &grid)?)?;
    dict.set_item("labels", shaped(py, batch.labels, &grid)?)?;
    dict.set_item("response_mask", shaped(py, batch.response_mask, &grid)?)?;
    dict.set_item("tool_call_mask", shaped(py, batch.tool_call_mask, &grid)?)?;
    dict.set_item("tool_name_mask", shaped(py, batch.tool_name_mask, &grid)?)?;
    dict.set_item("tool_args_mask", shaped(py, batch.tool_args_mask, &grid)?)?;
    if let Some(teacher) = batch.teacher {
        let classes = [batch.rows, batch.length, teacher.k];
        dict.set_item("teacher_topk_ids", shaped(py, teacher.topk_ids, &classes)?)?;
        dict.set_item("teacher_topk_logp", shaped(py, teacher.topk_logp, &classes)?)?;
        dict.set_item("teacher_tail_logp", shaped(py, teacher.tail_logp, &grid)?)?;
        dict.set_item("teacher_topk_mask", shaped(py, teacher.mask, &grid)?)?;
        if teacher.samples > 0 {
            let drawn = [batch.rows, batch.length, teacher.samples];
            dict.set_item("teacher_sample_ids", shaped(py, teacher.sample_ids, &drawn)?)?;
            dict.set_item("teacher_sample_counts", shaped(py, teacher.sample_counts, &drawn)?)?;
        }
    }
    dict.set_item("tool_should_be_used", batch.tool_should_be_used.into_pyarray(py))?;
    dict.set_item("required_fields_present", batch.required_fields_present.into_pyarray(py))?;
    dict.set_item("response_start", batch.response_start.into_pyarray(py))?;
    dict.set_item("response_length", batch.response_length.into_pyarray(py))?;
    dict.set_item("teacher_length", batch.teacher_length.into_pyarray(py))?;
    let prefix = [batch.rows, batch.prefix_length];
    dict.set_item("teacher_prefix_ids", shaped(py, batch.teacher_prefix_ids, &prefix)?)?;
    dict.set_item("teacher_attention_mask", shaped(py, batch.teacher_attention_mask, &grid)?)?;
    dict.set_item("source", batch.source.into_pyarray(py))?;
    dict.set_item("row", batch.row.into_pyarray(py))?;
    Ok(dict)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(collate_rows, module)?)
}
