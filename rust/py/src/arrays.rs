//! Core vectors handed to Python as numpy arrays without a copy.

use std::ops::Range;

use numpy::ndarray::{Array, Dim, IxDyn};
use numpy::{Element, IntoPyArray, PyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// `values` (row-major) as an array of `shape`.
pub fn shaped<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let array: Array<T, Dim<numpy::ndarray::IxDynImpl>> =
        Array::from_shape_vec(IxDyn(shape), values).map_err(|e| PyValueError::new_err(e.to_string()))?;
    Ok(array.into_pyarray(py))
}

/// Ranges as int32 `[n, 2]`.
pub fn spans(
    py: Python<'_>,
    spans: impl Iterator<Item = Range<usize>>,
) -> PyResult<Bound<'_, PyArrayDyn<i32>>> {
    let flat: Vec<i32> = spans.flat_map(|span| [span.start as i32, span.end as i32]).collect();
    let rows = flat.len() / 2;
    shaped(py, flat, &[rows, 2])
}
