//! kdfast's data core: JSONL, chat templates, token annotation, stores, collation and tool-call JSON.
//!
//! No Python in here: `kdfast-py` is the only crate that knows of it.

pub mod annotate;
pub mod collate;
mod dialects;
pub mod error;
pub mod fields;
pub mod ipc;
pub mod json;
pub mod jsonl;
pub mod messages;
pub mod mmap;
pub mod quarantine;
pub mod row_key;
pub mod schema;
pub mod teacher_store;
pub mod template;
pub mod threads;
pub mod token_store;
pub mod tokenize;
pub mod tool_call;

pub use error::{Error, Kind, Result};
