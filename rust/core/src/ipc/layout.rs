//! What every store file has in common.

/// Version of both stores' layout; a higher one is refused.
pub const SCHEMA_VERSION: u32 = 1;
/// The last column of each store: a checksum of the row.
pub const CHECKSUM_COLUMN: &str = "row_checksum";
/// The last bytes of a finished file.
pub const END_OF_STREAM: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
