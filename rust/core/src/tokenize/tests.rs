use serde_json::Value;

use super::Tokenizer;
use super::byte_level::byte_of_char;

/// A tokenizer whose tokens are the single bytes (but for `without`), two merges and `ChatML`'s specials.
pub(crate) fn byte_tokenizer(without: &[u8]) -> Tokenizer {
    let mut vocab: Vec<(char, u8)> = byte_of_char().into_iter().collect();
    vocab.sort_unstable_by_key(|(_, byte)| *byte);
    let mut entries = serde_json::Map::new();
    // No gap between the ids: with one, `tokenizers` would number the added tokens anew.
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
