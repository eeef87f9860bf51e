//! `TeacherStore` and `TeacherWriter`.

use std::path::PathBuf;

use kdfast_core::row_key::RowKey;
use kdfast_core::teacher_store::{self, Header, ScoredRow, renormalise};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::shaped;
use crate::boundary::enter;
use crate::token_store::TokenStore;

fn row_keys(keys: &PyReadonlyArray2<'_, u8>) -> PyResult<Vec<RowKey>> {
    let keys = keys.as_array();
    if keys.ncols() != 16 {
        return Err(PyValueError::new_err(format!(
            "keys must be uint8 [n, 16], got {} columns",
            keys.ncols()
        )));
    }
    Ok(keys.rows().into_iter().map(|row| std::array::from_fn(|i| row[i])).collect())
}

fn missing(store: &TokenStore, fingerprint: &str, contains: impl Fn(&RowKey) -> bool) -> Vec<i64> {
    let mut seen = std::collections::HashSet::new();
    let keys = store.0.row_keys(fingerprint).into_iter().enumerate();
    keys.filter(|(_, key)| !contains(key) && seen.insert(*key)).map(|(index, _)| index as i64).collect()
}

/// A mapped teacher store.
#[pyclass(frozen, module = "kdfast._rust")]
pub struct TeacherStore(pub teacher_store::TeacherStore);

#[pymethods]
impl TeacherStore {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        enter(py, || teacher_store::TeacherStore::open(&path)).map(Self)
    }

    /// The path of the store of `fingerprint` in `directory`, whether it exists or not.
    #[staticmethod]
    fn path_of(directory: PathBuf, fingerprint: &str) -> PathBuf {
        teacher_store::store_path(&directory, fingerprint)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    #[getter]
    fn fingerprint(&self) -> &str {
        &self.0.header().fingerprint
    }

    #[getter]
    fn k(&self) -> usize {
        self.0.header().k
    }

    #[getter]
    fn logprob_temperature(&self) -> f64 {
        self.0.header().logprob_temperature
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.header().vocab_size
    }

    #[getter]
    fn samples(&self) -> usize {
        self.0.header().samples
    }

    #[getter]
    fn bytes_per_token(&self) -> usize {
        self.0.header().bytes_per_token()
    }

    #[getter]
    fn torn_bytes(&self) -> usize {
        self.0.torn()
    }

    fn contains<'py>(
        &self,
        py: Python<'py>,
        keys: PyReadonlyArray2<'py, u8>,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let found: Vec<bool> = row_keys(&keys)?.iter().map(|key| self.0.contains(key)).collect();
        Ok(found.into_pyarray(py))
    }

    fn missing<'py>(&self, py: Python<'py>, store: &TokenStore) -> Bound<'py, PyArray1<i64>> {
        py.detach(|| missing(store, &self.0.header().fingerprint, |key| self.0.contains(key)))
            .into_pyarray(py)
    }

    /// One row's scores, the k + 1 classes renormalised, and its drawn ids where the store has some.
    fn row<'py>(&self, py: Python<'py>, key: PyReadonlyArray1<'py, u8>) -> PyResult<Bound<'py, PyDict>> {
        let key: RowKey = key.as_slice()?.try_into().map_err(|_| {
            PyValueError::new_err(format!("key must be uint8 [16], got {} bytes", key.len().unwrap_or(0)))
        })?;
        let row = self
            .0
            .get(&key)
            .ok_or_else(|| PyKeyError::new_err("no row with this key in the teacher store"))?;
        let &Header { k, samples, .. } = self.0.header();
        let n = row.tail.len();
        let mut logp = vec![0.0; n * k];
        let mut tail = vec![0.0; n];
        for (index, tail) in tail.iter_mut().enumerate() {
            let classes = index * k..(index + 1) * k;
            let known = renormalise(&row.logp[classes.clone()], row.tail[index], &mut logp[classes]);
            *tail = known.unwrap_or(0.0);
        }
        let opening = row.opening.map(|opening| opening.iter().map(|p| p.to_f32()).collect::<Vec<f32>>());
        let dict = PyDict::new(py);
        dict.set_item("topk_ids", shaped(py, row.ids.to_vec(), &[n, k])?)?;
        dict.set_item("topk_logp", shaped(py, logp, &[n, k])?)?;
        dict.set_item("tail_logp", tail.into_pyarray(py))?;
        dict.set_item("call_opening_logp", opening.map(|opening| opening.into_pyarray(py)))?;
        if samples > 0 {
            dict.set_item("sample_ids", shaped(py, row.sample_ids.to_vec(), &[n, samples])?)?;
            dict.set_item("sample_counts", shaped(py, row.sample_counts.to_vec(), &[n, samples])?)?;
        }
        Ok(dict)
    }

    fn audit(&self, py: Python<'_>) -> Vec<u64> {
        py.detach(|| self.0.audit())
    }
}

/// The one writer of a teacher store.
#[pyclass(module = "kdfast._rust")]
pub struct TeacherWriter {
    header: Header,
    path: PathBuf,
    recovered: usize,
    inner: Option<teacher_store::TeacherWriter>,
}

impl TeacherWriter {
    fn writer(&self) -> PyResult<&teacher_store::TeacherWriter> {
        self.inner.as_ref().ok_or_else(|| PyValueError::new_err("this teacher writer is closed"))
    }
}

#[pymethods]
impl TeacherWriter {
    #[staticmethod]
    #[pyo3(signature = (directory, fingerprint, *, k, vocab_size, samples, logprob_temperature=1.0))]
    fn open(
        py: Python<'_>,
        directory: PathBuf,
        fingerprint: String,
        k: usize,
        vocab_size: usize,
        samples: usize,
        logprob_temperature: f64,
    ) -> PyResult<Self> {
        if k == 0 || k > vocab_size {
            return Err(PyValueError::new_err(format!(
                "k must be between 1 and vocab_size ({vocab_size}), got {k}"
            )));
        }
        if samples > usize::from(u16::MAX) {
            return Err(PyValueError::new_err(format!(
                "samples must be at most {}, got {samples}",
                u16::MAX
            )));
        }
        let header = Header { fingerprint, k, logprob_temperature, vocab_size, samples };
        let inner = enter(py, || teacher_store::TeacherWriter::open(&directory, &header))?;
        Ok(Self { header, path: inner.path().to_owned(), recovered: inner.recovered(), inner: Some(inner) })
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.writer()?.len())
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    #[getter]
    fn samples(&self) -> usize {
        self.header.samples
    }

    #[getter]
    fn bytes_per_token(&self) -> usize {
        self.header.bytes_per_token()
    }

    #[getter]
    fn recovered_bytes(&self) -> usize {
        self.recovered
    }

    fn contains<'py>(
        &self,
        py: Python<'py>,
        keys: PyReadonlyArray2<'py, u8>,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let writer = self.writer()?;
        let found: Vec<bool> = row_keys(&keys)?.iter().map(|key| writer.contains(key)).collect();
        Ok(found.into_pyarray(py))
    }

    fn missing<'py>(&self, py: Python<'py>, store: &TokenStore) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let writer = self.writer()?;
        let rows = py.detach(|| missing(store, &self.header.fingerprint, |key| writer.contains(key)));
        Ok(rows.into_pyarray(py))
    }

    #[pyo3(signature = (
        keys, topk_ids, topk_logp, tail_logp, lengths, call_opening_logp=None, sample_ids=None, sample_counts=None
    ))]
    #[allow(clippy::too_many_arguments)] // one a column
    fn append(
        &mut self,
        py: Python<'_>,
        keys: PyReadonlyArray2<'_, u8>,
        topk_ids: PyReadonlyArray2<'_, i32>,
        topk_logp: PyReadonlyArray2<'_, f32>,
        tail_logp: PyReadonlyArray1<'_, f32>,
        lengths: PyReadonlyArray1<'_, i64>,
        call_opening_logp: Option<PyReadonlyArray1<'_, f32>>,
        sample_ids: Option<PyReadonlyArray2<'_, i32>>,
        sample_counts: Option<PyReadonlyArray2<'_, u16>>,
    ) -> PyResult<usize> {
        if [sample_ids.is_some(), sample_counts.is_some()] != [self.header.samples > 0; 2] {
            return Err(PyValueError::new_err(format!(
                "sample_ids and sample_counts must both be given to a store with samples and to no other; this one's \
                 samples: {}",
                self.header.samples
            )));
        }
        let scores = Scores {
            k: self.header.k,
            samples: self.header.samples,
            sample_ids: sample_ids.as_ref().map_or(Ok(&[][..]), |ids| ids.as_slice())?,
            sample_counts: sample_counts.as_ref().map_or(Ok(&[][..]), |counts| counts.as_slice())?,
            ids: topk_ids.as_slice()?,
            logp: topk_logp.as_slice()?,
            tail: tail_logp.as_slice()?,
            opening: call_opening_logp.as_ref().map(|opening| opening.as_slice()).transpose()?,
        };
        let rows = scores.rows(&row_keys(&keys)?, lengths.as_slice()?)?;
        let writer =
            self.inner.as_mut().ok_or_else(|| PyValueError::new_err("this teacher writer is closed"))?;
        enter(py, || writer.append(rows))
    }

    /// Closes the file and lets the next writer in.
    fn close(&mut self) {
        self.inner = None;
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&mut self, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close();
    }
}

/// The scores of several rows, one after the other.
struct Scores<'a> {
    k: usize,
    samples: usize,
    sample_ids: &'a [i32],
    sample_counts: &'a [u16],
    ids: &'a [i32],
    logp: &'a [f32],
    tail: &'a [f32],
    opening: Option<&'a [f32]>,
}

impl Scores<'_> {
    /// Cuts the scores into rows of `lengths` tokens.
    fn rows(&self, keys: &[RowKey], lengths: &[i64]) -> PyResult<Vec<ScoredRow>> {
        let tokens = self.tail.len();
        let fits = lengths.len() == keys.len()
            && lengths.iter().all(|&n| n >= 0)
            && lengths.iter().sum::<i64>() == tokens as i64
            && self.ids.len() == tokens * self.k
            && self.logp.len() == tokens * self.k
            && self.opening.is_none_or(|opening| opening.len() == tokens)
            && self.sample_ids.len() == tokens * self.samples
            && self.sample_counts.len() == tokens * self.samples;
        if !fits {
            return Err(PyValueError::new_err(format!(
                "append needs keys [n, 16], lengths [n] that sum to N, topk_ids and topk_logp [N, {}], tail_logp and \
                 call_opening_logp [N], sample_ids and sample_counts [N, {}]; got n = {}, N = {tokens}, {} ids, {} \
                 log-probabilities, {} drawn ids, {} counts",
                self.k,
                self.samples,
                keys.len(),
                self.ids.len(),
                self.logp.len(),
                self.sample_ids.len(),
                self.sample_counts.len()
            )));
        }
        let mut start = 0;
        let rows = keys.iter().zip(lengths).map(|(&key, &length)| {
            let tokens = start..start + length as usize;
            let classes = tokens.start * self.k..tokens.end * self.k;
            let drawn = tokens.start * self.samples..tokens.end * self.samples;
            start = tokens.end;
            ScoredRow {
                key,
                ids: self.ids[classes.clone()].to_vec(),
                logp: self.logp[classes].to_vec(),
                tail: self.tail[tokens.clone()].to_vec(),
                opening: self.opening.map(|opening| opening[tokens].to_vec()),
                sample_ids: self.sample_ids[drawn.clone()].to_vec(),
                sample_counts: self.sample_counts[drawn].to_vec(),
            }
        });
        Ok(rows.collect())
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TeacherStore>()?;
    module.add_class::<TeacherWriter>()
}
