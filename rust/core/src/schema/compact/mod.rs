//! Argument schemas that use only common keywords, packed into one piece of memory.
//!
//! Most tools need nothing else, and a set of them is searched with few cache misses. The common keywords are types,
//! properties, required names, items, enum and anyOf. A tool with any other keyword that can fail a value (`minimum`,
//! `pattern`, `$ref`) is left to `jsonschema`. `jsonschema` also says whether a schema is valid at all. The tests
//! compare the verdicts of both.
//!
//! Layout. Numbers are little-endian. A *piece* is its length in two bytes, then its bytes.
//!
//! ```text
//! tools     length of `names` (4 bytes), names, schemas
//! names     a tool: length (4 bytes), name, offset of its schema in `schemas` (4 bytes)
//! schema    types (1 byte), parts (1 byte), then one piece for each part it has, in this order:
//! members     number of required members (2 bytes), a piece: the schema of members without an entry,
//!             then a member: required or not (1 byte), pieces: key, schema
//! items       schema
//! choices     start and end of the choices that are no strings, in `values` (4 bytes each), a piece for each string
//! any_of      a piece for each: schema
//! ```

mod build;
mod code;
mod judge;
#[cfg(test)]
mod tests;

pub(super) use build::Builder;
pub(super) use judge::Compact;
