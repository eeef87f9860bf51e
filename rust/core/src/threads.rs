//! Threads for one call.

use crate::{Error, Result};

/// A pool of `threads` threads (0: one a core) for the caller alone; `None`: one thread, no pool is needed.
///
/// The caller drops it when it is done: a pool that outlived its call would be dead in a forked child.
pub fn pool(threads: usize) -> Result<Option<rayon::ThreadPool>> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    if threads == 1 {
        return Ok(None);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map(Some).map_err(|error| Error::data(format!("cannot start {threads} threads: {error}")))
}
