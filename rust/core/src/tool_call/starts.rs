//! Which token each byte of a stream belongs to.

/// The first byte of each token that has bytes in the buffer, and the token's number where it has one.
#[derive(Debug)]
pub(super) struct Starts(Vec<(usize, Option<usize>)>);

impl Default for Starts {
    fn default() -> Self {
        Self(Vec::with_capacity(64))
    }
}

impl Starts {
    /// The bytes from `start` on are of `token`, or of none.
    pub fn push(&mut self, start: usize, token: Option<usize>) {
        match self.0.last() {
            Some(&(_, last)) if last == token => {}
            _ => self.0.push((start, token)),
        }
    }

    /// The token that a byte of the buffer belongs to.
    pub fn token_of(&self, byte: usize) -> Option<usize> {
        let after = self.0.partition_point(|&(start, _)| start <= byte);
        self.0[..after].last().and_then(|&(_, token)| token)
    }

    /// Drops what is before byte `base`, the first one of the buffer; all if that is `empty`.
    pub fn forget(&mut self, base: usize, empty: bool) {
        let first = self.0.partition_point(|&(start, _)| start <= base).saturating_sub(1);
        self.0.drain(..first);
        if empty {
            self.0.clear();
        }
    }
}
