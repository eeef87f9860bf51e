//! Byte-level BPE: every byte has a printable character, and a token is written as the characters of its bytes.

use std::collections::HashMap;

use serde_json::Value;

use crate::{Error, Result};

const ONLY_BYTE_LEVEL: &str =
    "only byte-level BPE tokenizers (GPT-2, SmolLM2, Llama-3, Qwen, DeepSeek) are supported";

/// A byte-level BPE vocabulary.
pub(super) struct ByteLevel {
    bytes: HashMap<char, u8>,
}

impl ByteLevel {
    /// Fails when `document`, a `tokenizer.json`, is of another kind.
    pub fn read(document: &Value) -> Result<Self> {
        let model = document.pointer("/model/type").and_then(Value::as_str);
        // Old files leave the model's type out; only BPE has merges.
        let is_bpe = model == Some("BPE") || (model.is_none() && document.pointer("/model/merges").is_some());
        let byte_level = has_step(&document["pre_tokenizer"]) && has_step(&document["decoder"]);
        if is_bpe && byte_level {
            return Ok(Self { bytes: byte_of_char() });
        }
        let found = match (model, byte_level) {
            (Some("BPE"), _) => "BPE without a ByteLevel pre-tokenizer and decoder",
            (Some(name), _) => name,
            (None, _) => "no model",
        };
        Err(Error::data(format!("{ONLY_BYTE_LEVEL}; this one is {found}")))
    }

    /// The bytes of the token written as `token`; `None` when a character of it is no byte's.
    pub fn token_bytes(&self, token: &str) -> Option<Vec<u8>> {
        token.chars().map(|character| self.bytes.get(&character).copied()).collect()
    }
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

/// The byte of each character. A printable Latin-1 character is its own byte: 'a' is 0x61. The 68 other bytes have the
/// characters from U+0100 on, in order: 'Ġ' (U+0120) is 0x20, the space.
pub(super) fn byte_of_char() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255_u8)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let character = if printable {
                char::from(byte)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap_or_default()
            };
            (character, byte)
        })
        .collect()
}
