//! The key of a row: what a teacher store finds it by.

/// The key of a row in a teacher store.
pub type RowKey = [u8; 16];

/// The first 16 bytes of a blake3 hash. Hashed are: the ids (u32) and the flat supervised ranges (u32), each list
/// after its length (u64); the response's start (u64); the teacher's fingerprint. Numbers are little-endian.
pub(crate) fn row_key(ids: &[i32], supervised: &[i32], response_start: usize, fingerprint: &str) -> RowKey {
    let mut hasher = blake3::Hasher::new();
    for list in [ids, supervised] {
        hasher.update(&(list.len() as u64).to_le_bytes());
        let bytes: Vec<u8> = list.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.update(&(response_start as u64).to_le_bytes());
    hasher.update(fingerprint.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}
