//! Byte-level BPE tokenizers: text to ids, ids to bytes.
//!
//! Everything that kdfast knows about positions in text comes from [`Tokenizer::token_bytes`]: in byte-level BPE
//! each token *is* a string of bytes, so byte offsets are cumulated token lengths.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Error, Result};

const ONLY_BYTE_LEVEL: &str =
    "only byte-level BPE tokenizers (GPT-2, SmolLM2, Llama-3, Qwen, DeepSeek) are supported";

/// Texts from this length on go to Hugging Face's encoder: `fastokens` would spread them over a pool of its own, which
/// knows nothing of the caller's thread count and is dead in a forked process.
const FAST_BYTES: usize = 32 * 1024;

/// A tokenizer read from a `tokenizer.json`. Ids equal Hugging Face's.
///
/// Two encoders share the work: `fastokens`, a hundred times faster, and the `tokenizers` crate, which sets the standard
/// and takes what the other refuses: some tokenizer files, long texts, texts with bytes that have no token.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Made when the first text comes: its tables take longer to fill than a prepared dataset takes to open.
    fast: OnceLock<Option<fastokens::Tokenizer>>,
    document: Value,
    /// The bytes of all tokens end to end; token `id` is `bytes[starts[id]..starts[id + 1]]`.
    bytes: Vec<u8>,
    starts: Vec<u32>,
    special: HashMap<String, u32>,
    fingerprint: String,
    vocab_size: usize,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `path`: a `tokenizer.json`, or a directory that holds one.
    pub fn from_file(path: &Path) -> Result<Self> {
        let path = tokenizer_file(path)?;
        let json = std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
        Self::from_json(&json).map_err(|e| e.in_file(&path))
    }

    /// Builds a tokenizer from the content of a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut document: Value =
            serde_json::from_slice(json).map_err(|e| Error::data(format!("not a tokenizer.json: {e}")))?;
        check_byte_level(&document)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| Error::data(format!("not a tokenizer.json that can be loaded: {e}")))?;
        // A saved file may carry a truncation or padding of its last use; a dataset must never be cut by it.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::data(format!("cannot switch off truncation: {e}")))?;
        let (bytes, starts) = token_table(&inner);
        let special = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (token.content, id))
            .collect();
        document["truncation"] = Value::Null;
        document["padding"] = Value::Null;
        Ok(Self {
            fast: OnceLock::new(),
            document,
            vocab_size: starts.len() - 1,
            bytes,
            starts,
            special,
            fingerprint: blake3::hash(json).to_hex().to_string(),
            inner,
        })
    }

    /// The ids of `text`. No special token is added; the strings of special tokens inside `text` are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if text.len() < FAST_BYTES
            && let Some(fast) = self.fast()
            && let Ok(ids) = fast.encode_with_special_tokens(text, false)
        {
            return Ok(ids);
        }
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| Error::data(format!("the tokenizer cannot encode this text: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The fast encoder; `None` when it cannot read this tokenizer, and every text takes the other way.
    fn fast(&self) -> Option<&fastokens::Tokenizer> {
        self.fast.get_or_init(|| fastokens::Tokenizer::from_json(self.document.clone()).ok()).as_ref()
    }

    /// The bytes that token `id` stands for; empty for an id without a token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match (self.starts.get(id), self.starts.get(id + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The bytes of all `ids`, end to end.
    pub fn decode_bytes(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect()
    }

    /// The text of all `ids`, special tokens included; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids)).into_owned()
    }

    /// Byte offset of the start of each token, and of the end of the last: `ids.len() + 1` numbers.
    pub fn byte_offsets(&self, ids: &[u32]) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(ids.len() + 1);
        let mut at = 0;
        offsets.push(at);
        for &id in ids {
            at += self.token_bytes(id).len();
            offsets.push(at);
        }
        offsets
    }

    /// The first byte of `text` that `ids` do not give back; `None` when they give back all of it and no more.
    ///
    /// A vocabulary may lack single bytes (they are dropped without a word) and a normaliser may change the text.
    pub fn first_difference(&self, text: &str, ids: &[u32]) -> Option<usize> {
        let mut rest = text.as_bytes();
        for &id in ids {
            let token = self.token_bytes(id);
            if let Some(after) = rest.strip_prefix(token) {
                rest = after;
            } else {
                let common = token.iter().zip(rest).take_while(|(a, b)| a == b).count();
                return Some(text.len() - rest.len() + common);
            }
        }
        (!rest.is_empty()).then(|| text.len() - rest.len())
    }

    /// True when the bytes of `ids` are exactly those of `text`.
    pub fn covers(&self, text: &str, ids: &[u32]) -> bool {
        self.first_difference(text, ids).is_none()
    }

    /// The id of the special token written `content`.
    pub fn special_id(&self, content: &str) -> Option<u32> {
        self.special.get(content).copied()
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.values().any(|&special| special == id)
    }

    /// One more than the highest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// blake3 of the file, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn tokenizer_file(path: &Path) -> Result<PathBuf> {
    let kind = std::fs::metadata(path).map_err(|e| Error::io("read tokenizer", path, &e))?;
    if !kind.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join("tokenizer.json");
    if file.is_file() {
        Ok(file)
    } else {
        Err(Error::data(
            "no tokenizer.json in this directory: save the tokenizer with `save_pretrained` (fast tokenizers write one)",
        )
        .in_file(path))
    }
}

fn check_byte_level(document: &Value) -> Result<()> {
    let model = document.pointer("/model/type").and_then(Value::as_str);
    // Old files leave the model's type out; only BPE has merges.
    let is_bpe = model == Some("BPE") || (model.is_none() && document.pointer("/model/merges").is_some());
    let byte_level = has_step(&document["pre_tokenizer"]) && has_step(&document["decoder"]);
    if is_bpe && byte_level {
        return Ok(());
    }
    let found = match (model, byte_level) {
        (Some("BPE"), _) => "BPE without a ByteLevel pre-tokenizer and decoder",
        (Some(name), _) => name,
        (None, _) => "no model",
    };
    Err(Error::data(format!("{ONLY_BYTE_LEVEL}; this one is {found}")))
}

/// True when `step` is a `ByteLevel` step or a sequence with one in it.
fn has_step(step: &Value) -> bool {
    step["type"] == "ByteLevel"
        || ["pretokenizers", "decoders"]
            .iter()
            .filter_map(|list| step[*list].as_array())
            .flatten()
            .any(has_step)
}

fn token_table(inner: &tokenizers::Tokenizer) -> (Vec<u8>, Vec<u32>) {
    let to_byte = byte_of_char();
    let added = inner.get_added_tokens_decoder();
    let mut by_id: Vec<(u32, Vec<u8>)> = inner
        .get_vocab(true)
        .into_iter()
        .map(|(token, id)| {
            let mapped: Option<Vec<u8>> = token.chars().map(|c| to_byte.get(&c).copied()).collect();
            match mapped {
                Some(bytes) if !added.contains_key(&id) => (id, bytes),
                _ => (id, token.into_bytes()),
            }
        })
        .collect();
    by_id.sort_unstable_by_key(|(id, _)| *id);
    let mut bytes = Vec::new();
    let mut starts = vec![0];
    for (id, token) in by_id {
        starts.resize(id as usize + 1, bytes.len() as u32);
        bytes.extend_from_slice(&token);
        starts.push(bytes.len() as u32);
    }
    (bytes, starts)
}

/// GPT-2's printable stand-in for each byte, turned round: printable Latin-1 stands for itself, the 68 others
/// stand at U+0100 and above in order.
fn byte_of_char() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255_u8)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let stand_in = if printable {
                char::from(byte)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap_or_default()
            };
            (stand_in, byte)
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tokenizer whose tokens are the single bytes (but for `without`), two merges and `ChatML`'s specials.
    pub(crate) fn byte_tokenizer(without: &[u8]) -> Tokenizer {
        let mut vocab: Vec<(char, u8)> = byte_of_char().into_iter().collect();
        vocab.sort_unstable_by_key(|(_, byte)| *byte);
        let mut entries = serde_json::Map::new();
        // Ids without a gap: `tokenizers` gives added tokens new ids behind the model's otherwise.
        let kept = vocab.into_iter().filter(|(_, byte)| !without.contains(byte)).map(|(c, _)| c.to_string());
        for (id, token) in kept.chain(["th".to_owned(), "the".to_owned()]).enumerate() {
            entries.insert(token, id.into());
        }
        let added: Vec<Value> = ["<|im_start|>", "<|im_end|>"]
            .iter()
            .enumerate()
            .map(|(i, content)| {
                serde_json::json!({"id": entries.len() + i, "content": content, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let document = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": entries,
                "merges": ["t h", "th e"]}});
        Tokenizer::from_json(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn bytes_and_offsets_follow_the_tokens() {
        let tokenizer = byte_tokenizer(&[]);
        let ids = tokenizer.encode("the é<|im_end|>").unwrap();
        assert_eq!(ids, [257, 0x20, 0xC3, 0xA9, 259]);
        assert_eq!(tokenizer.decode(&ids), "the é<|im_end|>");
        assert_eq!(tokenizer.byte_offsets(&ids), [0, 3, 4, 5, 6, 16]);
        assert_eq!(tokenizer.special_id("<|im_end|>"), Some(259));
        assert_eq!(tokenizer.vocab_size(), 260);
    }

    #[test]
    fn a_dropped_byte_is_noticed() {
        let tokenizer = byte_tokenizer(b"q");
        let ids = tokenizer.encode("the queen").unwrap();
        assert_eq!(tokenizer.first_difference("the queen", &ids), Some(4));
        assert!(!tokenizer.covers("q", &tokenizer.encode("q").unwrap()));
        assert!(tokenizer.covers("the", &ids[..1]));
    }

    #[test]
    fn other_models_are_refused() {
        let error = Tokenizer::from_json(br#"{"model": {"type": "Unigram"}}"#).unwrap_err();
        assert!(error.message.contains("byte-level BPE") && error.message.ends_with("Unigram"), "{error}");
    }
}
