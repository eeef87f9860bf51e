//! The teacher store: per supervised token the k likeliest ids with their log-probabilities, keyed row by row.
//!
//! Rows are found by a hash of what the teacher saw, so reordering, filtering or adding data loses nothing. A store
//! only grows. A kill may leave a torn tail: readers ignore it, and the next writer cuts it off.

mod columns;
mod header;
mod record;
mod renormalise;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use columns::{ScoredRow, TeacherRow};
pub use header::{Header, RECORD_FINGERPRINT};
pub use record::RecordTeacher;
pub use renormalise::renormalise;
pub use store::{TeacherStore, store_path};
pub use writer::TeacherWriter;
