//! The token store: whole token rows with their spans, in one finished Arrow IPC stream file.
//!
//! Shapes and length limits are applied on reading ([`CutRow`]), so changing them costs nothing.

mod build;
mod columns;
mod cut;
mod raw_lines;
mod row;
mod store;

pub use build::{BuildOptions, BuildReport};
pub use columns::{List, SPANS};
pub use cut::CutRow;
pub use row::RowView;
pub use store::TokenStore;
