//! Rows to one padded batch, in one call. Targets are shifted here, once: `labels[t]` and every target mask at `t`
//! describe token `t + 1`, which `logits[t]` must predict.

mod batch;
mod fill;

use crate::teacher_store::{TeacherRow, TeacherStore};
use crate::token_store::{CutRow, List, TokenStore};
use crate::{Error, Result};
pub use batch::{Batch, IGNORE_INDEX, Shape, TeacherBatch};
use fill::Job;

/// One thread for this many positions of a batch: for fewer a second one does not pay.
const POSITIONS_PER_THREAD: usize = 1 << 17;

/// Collates `rows` of `store`. A row longer than `shape.length` loses the oldest droppable groups of its
/// conversation; a row that is then still too long is an error.
pub fn collate(
    store: &TokenStore,
    rows: &[i64],
    shape: Shape,
    teacher: Option<&TeacherStore>,
) -> Result<Batch> {
    let cut: Vec<CutRow> =
        rows.iter().map(|&row| cut_row(store, row, shape.length)).collect::<Result<_>>()?;
    let mut batch = Batch::new(store, rows, &cut, shape)?;
    let scored = match teacher {
        Some(teacher) => {
            let keys = store.row_keys_of(rows, &teacher.header().fingerprint)?;
            keys.iter().map(|key| teacher.get(key)).collect()
        }
        None => Vec::new(),
    };
    check_scores(&cut, &scored)?;
    if let Some(teacher) = teacher.filter(|_| scored.iter().any(Option::is_some)) {
        batch.teacher = Some(TeacherBatch::new(cut.len(), shape.length, teacher.header()));
    }
    let mut jobs: Vec<Job> = batch.jobs(&cut, &scored);
    let threads = thread_count(shape, jobs.len());
    if threads <= 1 {
        jobs.iter_mut().for_each(Job::fill);
    } else {
        // Threads of this call alone: a pool that outlived it would be dead in a forked worker.
        let per_thread = jobs.len().div_ceil(threads);
        std::thread::scope(|scope| {
            for part in jobs.chunks_mut(per_thread) {
                scope.spawn(move || part.iter_mut().for_each(Job::fill));
            }
        });
    }
    drop(jobs);
    Ok(batch)
}

fn thread_count(shape: Shape, rows: usize) -> usize {
    let wanted = match shape.threads {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            cores.min(rows * shape.length / POSITIONS_PER_THREAD)
        }
        threads => threads,
    };
    wanted.min(rows)
}

fn cut_row(store: &TokenStore, row: i64, length: usize) -> Result<CutRow<'_>> {
    let index =
        usize::try_from(row).map_err(|_| Error::data(format!("row must not be negative, got {row}")))?;
    let view = store.row(index)?;
    CutRow::new(view, length).ok_or_else(|| {
        Error::data(format!(
            "row {row} (line {} of the dataset) has {} tokens and cannot be cut to the length {length}: leave it out \
             (`fit` says -1) or use a longer shape",
            view.line(),
            view.ids().len()
        ))
    })
}

fn check_scores(rows: &[CutRow], scored: &[Option<TeacherRow>]) -> Result<()> {
    for (cut, scored) in rows.iter().zip(scored) {
        let tokens: usize = cut.row.spans(List::Supervised).map(|span| span.len()).sum();
        if let Some(scored) = scored.filter(|scored| scored.tail.len() != tokens) {
            return Err(Error::data(format!(
                "the teacher store has {} tokens for the row of line {}, which has {tokens}: score it again",
                scored.tail.len(),
                cut.row.line()
            )));
        }
    }
    Ok(())
}
