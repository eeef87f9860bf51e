//! The bytes of packed schemas: what their values mean, reading them and writing them. [`super`] has the layout.

use crate::json::Kind;

/// A set of JSON Schema's types: one bit for each [`Kind`], and [`WHOLE`].
pub(super) type Types = u8;

/// `integer`: a number without a fraction.
pub(super) const WHOLE: Types = 1 << 6;
pub(super) const ALL: Types = WHOLE - 1;

/// The schemas `true` and `false`: any value is valid, and none is.
pub(super) const ANYTHING: [u8; 2] = [ALL, 0];
pub(super) const NOTHING: [u8; 2] = [0, 0];

/// The parts that a schema may have besides its types.
pub(super) const MEMBERS: u8 = 1;
pub(super) const ITEMS: u8 = 2;
pub(super) const CHOICES: u8 = 4;
pub(super) const ANY_OF: u8 = 8;

/// In place of a schema's offset: the schema is unusual and not here.
pub(super) const UNUSUAL: u32 = u32::MAX;

/// The bit of one kind.
pub(super) const fn bit(kind: Kind) -> Types {
    1 << kind as u8
}

/// Packed bytes, read from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code<'a>(pub &'a [u8]);

impl<'a> Code<'a> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (bytes, rest) = self.0.split_first_chunk().expect("written whole");
        self.0 = rest;
        *bytes
    }

    pub fn byte(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    pub fn number(&mut self) -> usize {
        u32::from_le_bytes(self.bytes()) as usize
    }

    /// A piece with two bytes for its length.
    pub fn short(&mut self) -> &'a [u8] {
        let length = u16::from_le_bytes(self.bytes());
        self.take(usize::from(length))
    }

    /// A piece with four bytes for its length.
    pub fn long(&mut self) -> Self {
        let length = self.number();
        Self(self.take(length))
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }
}

/// Writes `piece` with two bytes for its length; `None`: it is too long.
pub(super) fn put_short(out: &mut Vec<u8>, piece: &[u8]) -> Option<()> {
    out.extend(u16::try_from(piece.len()).ok()?.to_le_bytes());
    out.extend(piece);
    Some(())
}

/// Writes `piece` with four bytes for its length; `None`: it is too long.
pub(super) fn put_long(out: &mut Vec<u8>, piece: &[u8]) -> Option<()> {
    out.extend(u32::try_from(piece.len()).ok()?.to_le_bytes());
    out.extend(piece);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = vec![7];
        put_short(&mut out, b"ab").unwrap();
        put_long(&mut out, b"").unwrap();
        out.extend(70_000_u32.to_le_bytes());
        let mut code = Code(&out);
        assert_eq!((code.byte(), code.short()), (7, b"ab".as_slice()));
        assert!(code.long().is_empty());
        assert_eq!(code.number(), 70_000);
        assert!(code.is_empty());
        assert_eq!(put_short(&mut out, &vec![0; 70_000]), None);
    }
}
