//! Reads single lines of a file again, by their number.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The raw bytes of lines that were parsed and then could not be annotated. They are asked for in order.
pub struct RawLines {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    number: u64,
}

impl RawLines {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), reader: None, number: 0 }
    }

    /// Line `wanted` (from 1, higher than any before), without its newline.
    pub fn get(&mut self, wanted: u64) -> Result<Vec<u8>> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, &e))?;
                none.insert(BufReader::new(file))
            }
        };
        let mut line = Vec::new();
        while self.number < wanted {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(|e| Error::io("read", &self.path, &e))?;
            self.number += 1;
        }
        line.truncate(line.strip_suffix(b"\n").unwrap_or(&line).len());
        Ok(line)
    }
}
