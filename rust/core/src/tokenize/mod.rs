//! Tokenizers: text to ids, ids to bytes.
//!
//! Here is what every kind of tokenizer gives. A kind has a file of its own, which says whether a `tokenizer.json` is
//! of that kind and which bytes each of its tokens has. There is one kind: `byte_level`.
//!
//! Every position in a text comes from [`Tokenizer::token_bytes`]: token 3 starts where the bytes of tokens 0, 1 and 2
//! end.

mod byte_level;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Error, Result};
use byte_level::ByteLevel;

/// Texts from this length on go to Hugging Face's encoder. `fastokens` would spread them over a thread pool of its own,
/// which ignores the caller's thread count and is dead in a forked process.
const FAST_BYTES: usize = 32 * 1024;

/// A tokenizer read from a `tokenizer.json`. Ids equal Hugging Face's.
///
/// There are two encoders. `fastokens` is a hundred times faster. The `tokenizers` crate sets the standard and takes
/// what `fastokens` refuses: some tokenizer files, long texts, texts with bytes that have no token.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Made when the first text comes: filling its tables takes longer than opening a prepared dataset, which may
    /// encode nothing.
    fast: OnceLock<Option<fastokens::Tokenizer>>,
    /// The same without added tokens: every text is just text to it. Made when it is first needed.
    plain: OnceLock<Option<tokenizers::Tokenizer>>,
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
        let kind = ByteLevel::read(&document)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| Error::data(format!("not a tokenizer.json that can be loaded: {e}")))?;
        // A file may still have the truncation and padding of its last use; they must not cut a dataset.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::data(format!("cannot switch off truncation: {e}")))?;
        let (bytes, starts) = token_table(&inner, |token| kind.token_bytes(token));
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
            plain: OnceLock::new(),
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
        self.encode_standard(text)
    }

    /// The ids of the `tokenizers` crate.
    fn encode_standard(&self, text: &str) -> Result<Vec<u32>> {
        // The crate panics where two added tokens both take the white space between them along.
        let encoded = catch_unwind(AssertUnwindSafe(|| self.inner.encode_fast(text, false)));
        match encoded {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Ok(Err(error)) => Err(Error::data(format!("the tokenizer cannot encode this text: {error}"))),
            Err(_) => Err(Error::data(
                "the tokenizer cannot encode this text: two of its added tokens take the same white space along (lstrip and \
                 rstrip in tokenizer.json), which the tokenizers library does not allow",
            )),
        }
    }

    /// The ids of `text`, in which no added token is recognised, special or not.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let made = self.plain.get_or_init(|| {
            let mut document = self.document.clone();
            document["added_tokens"] = Value::Array(Vec::new());
            tokenizers::Tokenizer::from_bytes(document.to_string()).ok()
        });
        let plain = made.as_ref().ok_or_else(|| {
            Error::data("this tokenizer cannot encode its special tokens as text: set data.content_tokens to refuse or allow")
        })?;
        let encoding = plain
            .encode_fast(text, false)
            .map_err(|e| Error::data(format!("the tokenizer cannot encode this text: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The fast encoder; `None` when it cannot read this tokenizer, or reads its added tokens in another way: then
    /// `tokenizers` encodes every text.
    fn fast(&self) -> Option<&fastokens::Tokenizer> {
        let make = || {
            let fast = fastokens::Tokenizer::from_json(self.document.clone()).ok()?;
            self.agrees_on_added_tokens(&fast).then_some(fast)
        };
        self.fast.get_or_init(make).as_ref()
    }

    /// Whether both encoders give the same ids around every added token, with spaces, lines and words beside it.
    fn agrees_on_added_tokens(&self, fast: &fastokens::Tokenizer) -> bool {
        self.inner.get_added_tokens_decoder().values().all(|token| {
            // Flags that move where a token ends: seldom used, and never needed for speed.
            if token.lstrip || token.rstrip || token.single_word {
                return false;
            }
            let content = &token.content;
            let text = format!("a {content} b{content}c\n{content}\n\n{content}{content} 1");
            let (standard, quick) =
                (self.encode_standard(&text), fast.encode_with_special_tokens(&text, false));
            matches!((standard, quick), (Ok(standard), Ok(quick)) if standard == quick)
        })
    }

    /// Whether it changes texts before it encodes them.
    pub fn normalises(&self) -> bool {
        !self.document["normalizer"].is_null()
    }

    /// The added tokens, and whether each is special.
    pub fn added_tokens(&self) -> impl Iterator<Item = (&str, bool)> {
        self.document["added_tokens"].as_array().into_iter().flatten().filter_map(|token| {
            Some((token["content"].as_str()?, token["special"].as_bool().unwrap_or(false)))
        })
    }

    /// The bytes of token `id`; empty for an id without a token.
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

    /// The first byte at which `text` and the bytes of `ids` differ; `None` when they are equal.
    ///
    /// They differ where the vocabulary lacks a byte (the encoder drops it and says nothing) or a normaliser changed
    /// the text.
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

/// All tokens' bytes end to end, and where each starts; `token_bytes` reads a token of the model.
fn token_table(
    inner: &tokenizers::Tokenizer,
    token_bytes: impl Fn(&str) -> Option<Vec<u8>>,
) -> (Vec<u8>, Vec<u32>) {
    let added = inner.get_added_tokens_decoder();
    let mut by_id: Vec<(u32, Vec<u8>)> = inner
        .get_vocab(true)
        .into_iter()
        .map(|(token, id)| {
            // Added tokens ("<|im_end|>") are written as they are.
            let bytes = if added.contains_key(&id) { None } else { token_bytes(&token) };
            (id, bytes.unwrap_or_else(|| token.into_bytes()))
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
