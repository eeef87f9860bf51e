"""Models and tokenizers of a few thousand parameters, written as Hugging Face directories."""

import json

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB = 300
TURN_END = "<|im_end|>"
TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_pieces():
    """The 256 printable characters that GPT-2 uses for bytes, in GPT-2's order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in kept]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(len(moved))]


def write_tokenizer(directory, extra=("<|endoftext|>", "<|im_start|>", TURN_END)):
    """Writes a byte-level tokenizer without merges: 256 bytes and a few special tokens."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document = {
        "version": "1.0",
        "added_tokens": [{"id": 256 + i, "content": piece, **special} for i, piece in enumerate(extra)],
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {p: i for i, p in enumerate(byte_pieces())}, "merges": []},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(document))
    return directory


def tiny_llama(seed=0, layers=3, tied=False, **options):
    """A Llama with random weights, large enough that one next token is clearly the likeliest."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": tied,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": 258,
    }
    return LlamaForCausalLM(LlamaConfig(**settings | options)).eval()


def write_model(directory, **options):
    """Writes a tiny Llama and its tokenizer."""
    tiny_llama(**options).save_pretrained(directory)
    return write_tokenizer(directory)
