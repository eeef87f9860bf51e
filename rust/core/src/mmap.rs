//! Files mapped into memory, seen as Arrow buffers.
//!
//! The only unsafe code of the project. `memmap2` marks mapping as unsafe because another process may change or cut the
//! file while it is mapped. That does not happen to kdfast's stores: they are written under another name and renamed,
//! or they only grow. (A writer may cut off a torn tail, but readers never look at that part.)
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::buffer::Buffer;
use memmap2::Mmap;

use crate::{Error, Result};

/// Maps `path` for reading. The buffer keeps the mapping alive; an empty file gives an empty buffer.
pub fn map(path: &Path) -> Result<Buffer> {
    let file = File::open(path).map_err(|e| Error::io("open", path, &e))?;
    let length = file.metadata().map_err(|e| Error::io("read", path, &e))?.len();
    if length == 0 {
        return Ok(Buffer::default());
    }
    // SAFETY: see the head of this file; the mapping is private to readers and never written through.
    let mapping = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", path, &e))?;
    let length = mapping.len();
    let start = NonNull::from(&mapping[..]).cast::<u8>();
    // SAFETY: `start..start + length` is the mapping, which the Arc keeps alive as long as any buffer on it.
    Ok(unsafe { Buffer::from_custom_allocation(start, length, Arc::new(mapping)) })
}
